//! The arguments. The flags of configuration keys are not among them: `key_flags` makes those from the table.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;

use super::completions;
use super::key_flags::KeyFlags;
use crate::api::auth::AccessRole;
use crate::api::grpc::election::FREEZE_SECS_MAX;
use crate::clock::parse_duration;
use crate::election::record::PRIORITY_MAX;

/// A leader-election meta daemon: elects exactly one leader and explains every change
#[derive(Debug, Parser)]
#[command(name = "metad", version, propagate_version = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a meta node: campaign for leadership, and run the main loop while this node leads
    Serve(ServeArgs),
    /// Like serve, with your own program as the main loop; it runs only while this node leads
    Run(RunArgs),
    /// Watch containers from beside them, and revoke the lease of one that is killed
    Guardian(GuardianArgs),
    /// Show the leader, the members, and how old this information is
    Status(ViewArgs),
    /// Show the leader
    Leader(ViewArgs),
    /// Show the registered members
    Members(ViewArgs),
    /// Follow changes of the leader and the members as they happen
    Watch(WatchArgs),
    /// Show past tenures: who led when, and why each one ended
    History(HistoryArgs),
    /// Ask the leader to hand over to a given member, or to any ready one
    StepDown(StepDownArgs),
    /// Give a running member another priority
    Priority(PriorityArgs),
    /// Forbid hand-overs and claims of a vacancy, for maintenance
    Freeze(FreezeArgs),
    /// End the freeze
    Unfreeze {
        #[command(flatten)]
        meta: MetaArgs,
    },
    /// Revoke the lease of a node you have confirmed dead; its registration and leader record go with it
    Release(ReleaseArgs),
    /// Wait until there is a leader, or until a node takes part in the election
    Wait(WaitArgs),
    /// Say which member to restart next, for a rolling upgrade that changes the leader once
    UpgradeOrder(UpgradeArgs),
    /// Run a sample worker: registers, collects every barrier immediately, prints each committed epoch
    Worker(WorkerArgs),
    /// Check everything that metad depends on, and print a fix for each problem
    Doctor(DoctorArgs),
    /// Run selected doctor checks, for monitoring
    Check(CheckArgs),
    /// Say which setting fits, from what this node has recorded
    Advise(AdviseArgs),
    /// Explain a check, a reason or an exit code
    Explain {
        /// Such as LEASE_003, renew_deadline or 75; without it, lists all
        #[arg(add = ArgValueCompleter::new(completions::codes))]
        code: Option<String>,
    },
    /// Validate or print the configuration
    Config(ConfigArgs),
    /// Test whether a node is healthy, for container health checks
    Health(HealthArgs),
    /// Make a private CA and certificates, for trying out
    Tls(TlsArgs),
    /// Make a token, and the line of auth.access_file that gives it a role
    Token(TokenArgs),
    /// Print the version
    Version,
    /// Generate shell completions
    Completions {
        /// Shell to generate completions for
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug, Default)]
pub(super) struct SettingArgs {
    /// Configuration file (TOML) [env: METAD_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) keys: KeyFlags,
}

#[derive(Args, Debug, Default)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) settings: SettingArgs,
    /// Print every event of this node as one JSON line on stdout
    #[arg(long)]
    pub(super) events: bool,
    /// Log more: -v for metad's own details, -vv for all of it
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Append what the election is told and asks for to FILE as JSON lines, for a bug report [env: METAD_TRACE]
    #[arg(long, value_name = "FILE")]
    pub(super) trace_file: Option<PathBuf>,
    /// Stay as an init whose child is the node, which it always is as process 1 of a container: reap, forward signals, exit with
    /// the node's code
    #[arg(long)]
    pub(super) init: bool,
    /// Accept, for this start only, that the store is new or was restored from a backup
    #[arg(long)]
    pub(super) accept_new_store: bool,
}

#[derive(Args, Debug)]
pub(super) struct GuardianArgs {
    /// Unix socket to listen at, on a volume that the watched containers have too (node.guardian_socket)
    #[arg(long, value_name = "PATH")]
    pub(super) socket: PathBuf,
    #[command(flatten)]
    pub(super) settings: SettingArgs,
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) serve: ServeArgs,
    /// Start the program on every candidate, where it stands by until its node leads (METAD_PROMOTE_FD)
    #[arg(long)]
    pub(super) standby: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

/// Where a member answers gRPC, unless it is told otherwise.
const GRPC_PORT: u16 = 5690;

/// Where the flags of credentials are in the help.
const TLS_HEADING: &str = "Credentials, also from ~/.config/metad/client.toml";

#[derive(Args, Clone, Debug, Default)]
pub(super) struct MetaArgs {
    /// Members to query, host:port (5690 if left out), all at once; the first that answers counts; default: 127.0.0.1 [env: METAD_META]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub(super) meta: Vec<String>,
    #[command(flatten)]
    pub(super) credentials: CredentialArgs,
}

#[derive(Args, Clone, Debug, Default)]
pub(super) struct CredentialArgs {
    /// CA of the members' certificates (PEM); the connection is then encrypted [env: METAD_TLS__CA_FILE]
    #[arg(long, value_name = "FILE", help_heading = TLS_HEADING)]
    pub(super) tls_ca: Option<PathBuf>,
    /// Certificate that shows who you are (PEM) [env: METAD_TLS__CERT_FILE]
    #[arg(long, value_name = "FILE", help_heading = TLS_HEADING)]
    pub(super) tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM) [env: METAD_TLS__KEY_FILE]
    #[arg(long, value_name = "FILE", help_heading = TLS_HEADING)]
    pub(super) tls_key: Option<PathBuf>,
    /// File with a token that shows who you are [env: METAD_AUTH__TOKEN_FILE]
    #[arg(long, value_name = "FILE", help_heading = TLS_HEADING)]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ViewArgs {
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output: OutputFormat,
    /// Repeat at this interval; without a value: 2s
    #[arg(short, long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = duration)]
    pub(super) watch: Option<Duration>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output: OutputFormat,
}

#[derive(Args, Debug)]
pub(super) struct FreezeArgs {
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// What for, shown wherever the freeze is
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    /// End it by itself after this time, at most 30d; without it, metad unfreeze does
    #[arg(long = "for", value_name = "DURATION", value_parser = freeze_duration)]
    pub(super) duration: Option<Duration>,
    /// Replace a freeze that is there, also another's
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Clone, Debug)]
pub(super) struct StepDownArgs {
    /// Member that should lead next; default: any ready member
    #[arg(long, value_name = "NODE", add = ArgValueCompleter::new(completions::members))]
    pub(super) to: Option<String>,
    /// Skip the confirmation prompt
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Step down even where no other member could lead
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) meta: MetaArgs,
}

#[derive(Args, Debug)]
pub(super) struct PriorityArgs {
    /// Node id of the member
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(completions::members))]
    pub(super) node: String,
    /// The higher one leads first; 0: it never leads
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(..=i64::from(PRIORITY_MAX)))]
    pub(super) priority: u16,
    #[command(flatten)]
    pub(super) meta: MetaArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct HistoryArgs {
    /// Only tenures that ended within this time, and the current one, such as 24h or 7d; default: all
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) since: Option<Duration>,
    /// Show at most N tenures, the newest ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output: OutputFormat,
}

#[derive(Args, Debug)]
pub(super) struct ReleaseArgs {
    /// Node id of the dead node
    #[arg(long, value_name = "NODE", add = ArgValueCompleter::new(completions::members))]
    pub(super) node: String,
    /// Confirm that the node is dead. A released node that still runs stops leading only when it notices
    #[arg(long, required = true)]
    pub(super) it_is_dead: bool,
    #[command(flatten)]
    pub(super) credentials: CredentialArgs,
    #[command(flatten)]
    pub(super) settings: SettingArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct WaitArgs {
    /// What to wait for
    #[arg(value_enum)]
    pub(super) what: WaitFor,
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(super) timeout: Duration,
}

#[derive(Args, Clone, Debug)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Version that all members are to run; default: that of this command
    #[arg(long, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"), hide_default_value = true)]
    pub(super) to: String,
    /// Print the next node alone, and nothing when all members run the version
    #[arg(long)]
    pub(super) next: bool,
    /// Wait until it is safe to restart one: there is a leader, and every member takes part and sees it
    #[arg(long)]
    pub(super) wait: bool,
    /// Maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(super) timeout: Duration,
    /// Do not wait for this node, which is not to come back
    #[arg(long, value_name = "NODE", add = ArgValueCompleter::new(completions::members))]
    pub(super) without: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct WorkerArgs {
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Host under which the worker registers; host and port identify it
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub(super) host: String,
    /// Port under which the worker registers; nothing listens there. Workers on one host need different ports
    #[arg(long, value_name = "PORT", default_value_t = 5688, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: u16,
    /// Kind under which the worker registers
    #[arg(long, value_name = "KIND", default_value = "compute")]
    pub(super) kind: String,
    /// Exit after N committed epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) epochs: Option<u64>,
    /// Output format: one line of text or JSON per committed epoch
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output: OutputFormat,
}

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) settings: SettingArgs,
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = DoctorFormat::Table)]
    pub(super) output: DoctorFormat,
    /// Run only these checks, by code or name
    #[arg(long, value_name = "CODE,…", value_delimiter = ',', add = ArgValueCompleter::new(completions::checks))]
    pub(super) only: Vec<String>,
    /// Skip these checks, by code or name
    #[arg(long, value_name = "CODE,…", value_delimiter = ',', add = ArgValueCompleter::new(completions::checks))]
    pub(super) skip: Vec<String>,
    /// How long to sample etcd's counters
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(super) sample: Duration,
    /// Write no test data: no key or lease in etcd, no file in the data dir
    #[arg(long)]
    pub(super) no_write_probe: bool,
    /// List the checks
    #[arg(long, conflicts_with = "role")]
    pub(super) list: bool,
    /// Print etcd's commands that make a user with the permissions which metad needs
    #[arg(long)]
    pub(super) role: bool,
}

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Codes or names of checks; metad doctor --list shows them
    #[arg(required = true, value_name = "CODE", add = ArgValueCompleter::new(completions::checks))]
    pub(super) codes: Vec<String>,
    #[command(flatten)]
    pub(super) settings: SettingArgs,
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = CheckFormat::Text)]
    pub(super) output: CheckFormat,
}

#[derive(Args, Debug)]
pub(super) struct AdviseArgs {
    #[command(subcommand)]
    pub(super) command: AdviseCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum AdviseCommand {
    /// For each lease, how often leadership would have been lost in the last 30 days, and what a fail-over costs
    ///
    /// Reads what the node of this data dir has recorded while it led; it may run meanwhile. Ask on each node that has led.
    Lease {
        #[command(flatten)]
        settings: SettingArgs,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
        output: OutputFormat,
    },
}

#[derive(Args, Clone, Debug)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    pub(super) meta: MetaArgs,
    /// What to test
    #[arg(value_enum, default_value_t = HealthOf::Readiness)]
    pub(super) what: HealthOf,
}

#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub(super) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Validate the configuration; exits 0 or 78
    Check {
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Print the effective configuration as TOML
    Print {
        #[command(flatten)]
        settings: SettingArgs,
        /// Show where each value comes from
        #[arg(long)]
        origins: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct TlsArgs {
    #[command(subcommand)]
    pub(super) command: TlsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum TlsCommand {
    /// Write ca.pem, a certificate for each member, and one for each role of clients, with their keys
    Init {
        /// Directory to write into; it is made, and nothing in it is replaced
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Node ids of the members
        #[arg(long, value_name = "NODE,…", value_delimiter = ',', required = true)]
        members: Vec<String>,
        /// Host names and IP addresses at which members are reached, besides their node ids and this machine's loopback
        #[arg(long, value_name = "HOST,…", value_delimiter = ',')]
        hosts: Vec<String>,
        /// For how many days the certificates are valid
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
}

#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    /// What its bearer may do: see everything, and be a worker, write the state, make the leader step down, or be a member
    #[arg(long, value_parser = PossibleValuesParser::new(AccessRole::ALL.map(AccessRole::as_str)))]
    pub(super) role: String,
    /// Who that is: a member's node id, a worker's host or host:port; * for any
    #[arg(long, value_name = "NAME", default_value = "*")]
    pub(super) name: String,
    /// Write the token into this new file instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DoctorFormat {
    Table,
    Json,
    Markdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckFormat {
    Text,
    Json,
    /// One line with perf data
    Nagios,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum WaitFor {
    /// There is a leader
    Leader,
    /// The queried member takes part in the election
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum HealthOf {
    /// The process runs and answers
    Live,
    /// The node takes part in the election
    Readiness,
    /// The node leads
    Leader,
}

fn duration(text: &str) -> Result<Duration, String> {
    let bounded =
        any_duration(text).filter(|d| *d >= Duration::from_millis(100) && *d <= Duration::from_secs(86_400));
    bounded.ok_or_else(|| "write a duration from 100ms to 24h, such as 30s or 2m".to_owned())
}

/// The same for a freeze, which may be longer and counts in seconds.
fn freeze_duration(text: &str) -> Result<Duration, String> {
    let bounded = any_duration(text).filter(|d| (1..=FREEZE_SECS_MAX).contains(&d.as_secs()));
    bounded.ok_or_else(|| "write a duration from 1s to 30d, such as 30m or 2h".to_owned())
}

/// A number without a unit is seconds.
fn any_duration(text: &str) -> Option<Duration> {
    let bare = text.parse().map(Duration::from_secs).ok();
    bare.or_else(|| parse_duration(text).ok())
}

/// An address without a port means metad's own.
pub(super) fn with_port(address: &str) -> String {
    let address = address.trim();
    if address.parse::<Ipv6Addr>().is_ok() {
        return format!("[{address}]:{GRPC_PORT}");
    }
    let has_port =
        address.rsplit_once(':').is_some_and(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
    if has_port { address.to_owned() } else { format!("{address}:{GRPC_PORT}") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_address_without_a_port_gets_that_of_grpc() {
        let rows = [
            ("localhost", "localhost:5690"),
            ("meta-0:7", "meta-0:7"),
            (" 10.0.0.1 ", "10.0.0.1:5690"),
            ("::1", "[::1]:5690"),
            ("[::1]", "[::1]:5690"),
            ("[::1]:7", "[::1]:7"),
        ];
        for (given, asked) in rows {
            assert_eq!(with_port(given), asked);
        }
    }

    #[test]
    fn durations_are_read_with_and_without_a_unit_and_bounded() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0").is_err() && duration("-1s").is_err() && duration("soon").is_err());
        assert_eq!(freeze_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert!(["31d", "500ms", "0", "soon"].iter().all(|text| freeze_duration(text).is_err()));
    }
}
