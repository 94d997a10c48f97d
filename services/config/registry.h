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
  kSource = 2,             // <source CIDR>, <accepted-connect CIDR>
  kVirtualMta = 4,         // <virtual-mta NAME>
  kPool = 8,               // <virtual-mta-pool NAME>
  kSourcePool = 16,        // <source-pool CIDR>
  kDomain = 32,            // <domain PATTERN>, also inside virtual MTAs and pools
  kListener = 1 << 10,     // <smtp-listener IP:PORT>
  kPatternList = 1 << 11,  // <pattern-list NAME>
  kSourceGroup = 1 << 12,  // <source-group NAME>
};
inline constexpr Scope kAllScopes[] = {kGlobal, kSource,   kVirtualMta,  kPool,       kSourcePool,
                                       kDomain, kListener, kPatternList, kSourceGroup};
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
  kCompiler,     // no field: the compiler knows what to do
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
  kIp,
  kIpPorts,    // ip[:port], several; `default_port` where it may be left out
  kHostPorts,  // host[:port], several
  kDomains,    // domains, several
  kWords,      // words, several
  kTexts,      // one text a line, several lines
  kEmail,
  kQueueName,    // domain or domain/vmta
  kTargetName,   // a virtual MTA or pool that exists
  kSectionName,  // a section of the kind that `choices` says: source, pattern-list, source-group
  kPattern,      // lines of a <pattern-list>
  kAddressPair,  // alias
  kFolderPair,   // pickup
  kAddressRule,  // address or /regex/
  kSourceHost,   // IP and host name
};

enum class Status {
  kActive,
  kNotYet,    // read and kept; without effect in this version, and a warning says so
  kRefused,   // cannot be had in this version, and doing without it would be unsafe: an error, save
              // for a value that asks for nothing
  kNoEffect,  // needs nothing here: what it asks for is always so
};

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
  std::string_view choices = {};  // "headers,full"
  uint16_t default_port = 0;
  bool appends = false;  // a further line adds to a list, else it replaces
};

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
// As an operator would write it: "20", "4d12h"; empty where there is none. From the settings that
// PolicyView begins with.
std::string DefaultOf(const Directive& directive);

// PowerMTA's directives and sections that this version does not have: a line of theirs is named in
// a warning and left out. Where it restricts what is sent or taken, it is an error: going on
// without it, at full rate, say, is the worst that can happen.
bool IsForeignDirective(std::string_view name);
bool IsForeignSection(std::string_view name);
bool ForeignDirectiveRestricts(std::string_view name);
bool ForeignSectionRestricts(std::string_view name);

// True where this value of a directive that restricts asks for no restriction: "no", "unlimited",
// "never", "smtp" for type, 0 where the directive's 0 is no limit. `directive` is nullptr for a
// foreign one.
bool AsksForNothing(const Directive* directive, std::string_view value);

}  // namespace sluice::config
