"""The loads that are measured."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Profile:
    name: str
    what: str
    messages: int
    size: int = 10240
    sessions: int = 40
    per_connection: int = 0
    recipients: int = 1
    domains: int = 1
    zipf: float = 0
    pipelining: bool = False
    tls: bool = False               # STARTTLS on both sides
    full_handshakes: bool = False   # sessions are not resumed
    messages_per_delivery_connection: int = 0
    idle: int = 0                   # connections beside the load that say EHLO and nothing more
    # The receiver.
    rules: tuple = ()
    round_trip_ms: int = 0
    deferred: float = 0  # share of attempts, as `rules` say
    # Limits of the sender under test.
    connections_per_domain: int = 0   # 0: what each system does by default for its own (outbound_connections for Sluice)
    outbound_connections: int = 40
    recipients_per_message: int = 1000
    retry_after_s: int = 1
    # flow: accept and deliver at one time. backlog: accept all, then deliver. storm: all refused once within a minute, then due within one.
    # idle: the load alone, then beside idle connections.
    # fairness: a held big load is released, small messages beside it. restart: kill -9 with everything queued.
    kind: str = "flow"
    small_messages: int = 0
    small_rate: float = 0
    quick_divisor: int = 20
    systems: tuple = ("sink", "postfix", "postfix-tuned", "sluiced", "services")


PROFILES = {p.name: p for p in (
    Profile("10k", "10 KiB, 40 persistent sessions", messages=60_000),
    Profile("1k", "1 KiB, 40 persistent sessions", messages=100_000, size=1024),
    Profile("100k", "100 KiB, 40 persistent sessions", messages=10_000, size=102_400),
    Profile("connect", "10 KiB, a connection per message", messages=30_000, per_connection=1),
    Profile("tls", "10 KiB, TLS on both sides, sessions persistent and resumed", messages=60_000, tls=True,
            systems=("sink", "sluiced", "services")),
    Profile("handshake", "10 KiB, TLS on both sides, a full handshake per message (ECDSA P-256)", messages=20_000, per_connection=1, tls=True,
            full_handshakes=True, messages_per_delivery_connection=1, systems=("sink", "sluiced", "services")),
    Profile("idle", "10 KiB, 40 persistent sessions beside 10,000 idle connections", messages=60_000, idle=10_000, kind="idle",
            systems=("sluiced",)),
    Profile("idle-tls", "the same, all of it with TLS", messages=60_000, idle=10_000, kind="idle", tls=True, systems=("sluiced",)),
    Profile("zipf", "10 KiB, Zipf over 50,000 domains", messages=60_000, domains=50_000, zipf=1.0),
    Profile("far", "10 KiB, remote round trip 50 ms, 5 % 4xx, 20 connections a domain", messages=100_000, domains=10, round_trip_ms=50,
            rules=("* defer=5%",), deferred=0.05, connections_per_domain=20, systems=("postfix-tuned", "sluiced", "services")),
    Profile("backlog", "draining a backlog of one million, 10 KiB", messages=1_000_000, kind="backlog", quick_divisor=50,
            systems=("postfix-tuned", "sluiced", "services")),
    Profile("storm", "deferral storm: one million due in one minute, 1 KiB", messages=1_000_000, size=1024, kind="storm", retry_after_s=60,
            rules=("* greylist=1s",), quick_divisor=100, systems=("sluiced", "services")),
    Profile("alone", "10 KiB, one client alone", messages=3_000, sessions=1, quick_divisor=10),
    Profile("fairness", "a job of 5 million beside a small one, 1 KiB", messages=5_000_000, size=1024, kind="fairness", small_messages=2_000,
            small_rate=100, quick_divisor=200, systems=("sluiced", "services")),
    Profile("list", "one message × 10,000 recipients, 10 KiB", messages=20, recipients=10_000, sessions=4, quick_divisor=4),
    Profile("restart", "10 M × 1 KiB over 200,000 queues, then kill -9", messages=10_000_000, size=1024, domains=200_000, kind="restart",
            quick_divisor=500, systems=("sluiced",)),
    Profile("huge", "100 sessions × 50 MB", messages=100, size=50_000_000, sessions=100, quick_divisor=5, outbound_connections=20),
)}
