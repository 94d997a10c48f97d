// Every directive of the language, declared once. The compiler, the reference page and completion
// read these declarations; nothing else knows a directive by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::config {

// Where a directive may be written. Values are bits.
enum Scope : uint32_t {
  kGlobal = 1,
  kSource = 2,       // <source CIDR>, <accepted-connect CIDR>
  kVirtualMta = 4,   // <virtual-mta NAME>
  kPool = 8,         // <virtual-mta-pool NAME>
  kSourcePool = 16,  // <source-pool CIDR>
  kDomain = 32,      // <domain PATTERN>, also inside virtual MTAs and pools
  kSpool = 1 << 6,
  kBounceProcessor = 1 << 7,
  kFeedbackLoopProcessor = 1 << 8,
  kAddressList = 1 << 9,
  kListener = 1 << 10,     // <smtp-listener IP:PORT>
  kPatternList = 1 << 11,  // <pattern-list NAME>
  kSourceGroup = 1 << 12,  // <source-group NAME>
  kSmtpUser = 1 << 13,
  kAcctFile = 1 << 14,
  kSmtpPatternList = 1 << 15,
  kBounceCategories = 1 << 16,
  kDns = 1 << 17,
  kEmailPatterns = 1 << 18,
  kRewriteList = 1 << 19,
  kDomainKeyList = 1 << 20,
  kTransmissionsApi = 1 << 21,
  kTransmissionsApiListener = 1 << 22,
  kProxy = 1 << 23,
  kVault = 1 << 24,
  kSchedule = 1 << 25,
  kLimits = 1 << 26,
  kSmtpPattern = 1 << 27,
  kStatistics = 1 << 28,
  kBind = 1 << 29,
  kMxRollupList = 1 << 30,
};
inline constexpr Scope kAllScopes[] = {kGlobal,
                                       kSource,
                                       kVirtualMta,
                                       kPool,
                                       kSourcePool,
                                       kDomain,
                                       kSpool,
                                       kBounceProcessor,
                                       kFeedbackLoopProcessor,
                                       kAddressList,
                                       kEmailPatterns,
                                       kSmtpUser,
                                       kSourceGroup,
                                       kAcctFile,
                                       kPatternList,
                                       kSmtpPatternList,
                                       kBounceCategories,
                                       kDns,
                                       kListener,
                                       kRewriteList,
                                       kDomainKeyList,
                                       kTransmissionsApi,
                                       kTransmissionsApiListener,
                                       kProxy,
                                       kVault,
                                       kSchedule,
                                       kLimits,
                                       kSmtpPattern,
                                       kStatistics,
                                       kBind,
                                       kMxRollupList};
// "global", "<source>", ...
std::string_view ScopeName(Scope scope);

// The message that has the directive's field.
enum class Target {
  kGlobalSettings,
  kQueueSettings,   // in a section other than <domain>: for all its domains
  kClientSettings,  // at global level: for all clients
  kSourceSettings,  // <source IP> as an outbound address
  kVirtualMta,      // VirtualMtaSection
  kPool,            // PoolSection
  kListenerSettings,
  kSourceGroup,  // SourceGroupSection
  kSmtpUser,     // SmtpUserSection
  kCompiler,     // no field: the compiler knows what to do
  kNone,         // the value is checked and not kept
};

enum class Grammar {
  kBool,          // yes, no
  kCount,         // N
  kDuration,      // 1h30m, to a field in microseconds
  kDurationList,  // 10m,30m,1h
  kRate,          // N/unit
  kSize,          // 50M, to a field in bytes
  kText,          // one word, or more in quotes
  kChoice,        // one of `choices`
  kHostName,
  kSelector,  // of a DKIM key
  kIp,
  kIpPorts,         // ip[:port], several; `default_port` where it may be left out
  kHostPorts,       // host[:port], several
  kDomains,         // domains, several
  kDomainPatterns,  // domains, *.d and [*.]d, several
  kWords,           // words, several
  kHeaderLines,     // NAME: VALUE, one a line, several lines
  kReplyText,       // of an SMTP reply: ASCII, and short
  kEmail,
  kQueueName,       // domain or domain/vmta
  kTargetName,      // a virtual MTA or pool that exists
  kSectionName,     // a section of the kind that `choices` says: source, pattern-list, source-group
  kPattern,         // lines of a <pattern-list>
  kAddressPair,     // alias
  kFolderPair,      // pickup
  kAddressRule,     // address or /regex/
  kSourceHost,      // IP and host name
  kVolume,          // N[bkmgt]/unit
  kRateList,        // 50/day,100/day
  kIps,             // addresses, several
  kNetworks,        // networks, several
  kEmails,          // addresses of mail, several
  kHeader,          // name of a header field (RFC 5322 3.6.8)
  kHeaders,         // header names, several; also separated by colons, as in RFC 6376's h=
  kFile,            // path of a file or folder, or {vault}:/PATH:KEY
  kUrl,             // http[s]://host[:port][/path]
  kRegex,           // /regex/flags, or a bare regex
  kMailOrRegex,     // address of mail, or a regex
  kIdentity,        // address of mail, domain, or @domain
  kDomainKey,       // SELECTOR,DOMAIN,FILE
  kBoolOrTime,      // yes, no, never or a TIME
  kArguments,       // from `min` to `max` words; `syntax` says which
  kSchedule,        // HH:MM to HH:MM for TIME max-msg-rate RATE, after the name "from"
  kGrowth,          // N%/UNIT
  kThrottleOn,      // RATE on CODE,CODE
  kIpDomain,        // IP domain = DOMAIN;
  kTlsCertificate,  // PEM file, and password of its key
  kPatternLine,     // of a pattern section: the compiler reads it
};

// What stands before the value: source-ip-max-smtp-out 10/8 5.
enum class Key { kNothing, kNetwork, kHost, kWord };

enum class Status {
  kActive,       // effective
  kNotYet,       // planned: the value is checked; without effect in this version, and a warning
                 // says so
  kRefused,      // planned, and it restricts: doing without it would be unsafe, so it is an error,
                 // save for a value that asks for nothing
  kNoEffect,     // no meaning here: what it asks for is always so, or there is nothing it is about
  kUnsupported,  // not to come; `reason` says why
};
// "effective", "planned", "no meaning here", "unsupported".
std::string_view StatusName(Status status);

// Capabilities that planned directives come with.
inline constexpr std::string_view kWarmUp = "warm-up";
inline constexpr std::string_view kAdaptive = "adaptive throttling";
inline constexpr std::string_view kDkim = "DKIM and sender authentication";
inline constexpr std::string_view kBounces = "bounce and complaint processing";
inline constexpr std::string_view kAccounting = "accounting and delivery logs";
inline constexpr std::string_view kManagement = "the management interface";

struct Directive {
  std::string_view name;
  std::vector<std::string_view> aliases = {};
  uint32_t scopes = 0;
  Target target = Target::kCompiler;
  std::string_view field = {};  // in the target's message
  Grammar grammar = Grammar::kText;
  std::string_view help = {};  // one sentence
  Status status = Status::kActive;
  uint64_t min = 0;  // of kCount, kSize, and kDuration in microseconds
  uint64_t max = UINT32_MAX;
  // What `unlimited` or `never` stands for; without, they are errors.
  std::optional<uint64_t> unlimited = std::nullopt;
  bool zero_is_unlimited = false;  // though it is less than `min`
  // "headers,full"; with another grammar than kChoice, kWords and kSectionName what may be written
  // in place of a value.
  std::string_view choices = {};
  // Of these the one that is accepted and does nothing, as of kUnsupported, and why.
  std::string_view unsupported_choice = {};
  std::string_view unsupported_choice_reason = {};
  uint16_t default_port = 0;
  bool appends = false;  // a further line adds to a list, else it replaces
  Key key = Key::kNothing;
  std::string_view syntax = {};  // where the grammar's own is not enough
  // What holds where no file says it, as text; where the settings' defaults do not have it.
  std::string_view unset = {};
  // Of kNoEffect, where help does not say it, and of kUnsupported; of what is planned the
  // capability that it comes with, "DKIM".
  std::string_view reason = {};
  bool secret = false;         // the value is never shown
  bool needs_restart = false;  // a reload does not change it
  // With kUnsupported or kNoEffect: what it asks for restricts, so it is refused, as kRefused.
  bool restricts = false;
};

// A kind of section, declared once.
struct SectionKind {
  std::string_view name;  // as in <name>
  Scope scope;
  uint32_t parents;           // where it may be opened
  std::string_view argument;  // "NAME", "[NAME]", ...; empty: none
  std::string_view help;
  Status status = Status::kActive;
  std::string_view reason = {};  // of what is planned: the capability that it comes with
};
const std::vector<SectionKind>& AllSections();
const SectionKind* FindSection(std::string_view name);

// All, in the order of the reference page. Built once. Thread-safety: any.
const std::vector<Directive>& AllDirectives();

// By name or alias in lower case; nullptr where that scope has none of that name.
const Directive* FindDirective(Scope scope, std::string_view name);

// Every name and alias that may be written in `scope`.
std::vector<std::string_view> NamesIn(Scope scope);
// The scopes that know `name`, for "may be written in ..."; 0: none does.
uint32_t ScopesOf(std::string_view name);

// "yes | no", "N | unlimited", "10m,30m,1h": how the value is written.
std::string SyntaxOf(const Directive& directive);
// As an operator would write it: "20", "4d12h"; empty where there is none, or the directive is not
// effective. From the settings that PolicyView begins with, or the declaration's `unset`.
std::string DefaultOf(const Directive& directive);

// True where arguments of directives with this name may be regex literals.
bool TakesRegex(std::string_view name);
// True where the value of a directive with this name, in some section, is never to be shown.
bool IsSecret(std::string_view name);

// The same, and of a name that no section knows where it reads as that of a secret: it is most
// likely one, written wrong or of another product.
bool MayBeSecret(std::string_view name);

// True where this value of a directive that restricts asks for no restriction: "no", "unlimited",
// "never", "smtp" and "lmtp" for type, 0 where the directive's 0 is no limit.
bool AsksForNothing(const Directive& directive, std::string_view value);

}  // namespace sluice::config
