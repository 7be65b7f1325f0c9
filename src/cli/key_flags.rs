//! The flags of configuration keys, made from the table of keys: a key with a flag needs nothing here.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{KEYS, Key, Kind};

/// The flags that were given, as pairs of a key's path and what was typed.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyFlags(Vec<(&'static str, String)>);

/// The flag of a key that has one. What was typed is judged with the other layers, so any text is taken here.
fn arg(key: &Key) -> Option<Arg> {
    let (flag, help) = (key.flag?, key.flag_help()?);
    let arg = Arg::new(key.path).long(flag.name.trim_start_matches("--")).value_name(flag.value).help(help);
    // `--insecure` alone says yes.
    let arg = match key.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    };
    // Else clap took "-3" for a flag, and the user would not learn the range.
    Some(arg.allow_negative_numbers(matches!(key.kind, Kind::Integer { .. })))
}

// === impl KeyFlags ===

impl KeyFlags {
    /// As [`config::load`](crate::config::load) takes them.
    pub(super) fn given(&self) -> &[(&'static str, String)] {
        &self.0
    }
}

impl Args for KeyFlags {
    fn augment_args(command: Command) -> Command {
        command.args(KEYS.iter().filter_map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KeyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |key: &Key| Some((key.path, matches.get_one::<String>(key.path)?.clone()));
        Ok(Self(KEYS.iter().filter(|key| key.flag.is_some()).filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        KeyFlags::augment_args(Command::new("metad"))
    }

    #[test]
    fn every_flag_of_a_key_is_taken_and_given_to_its_key() {
        for key in KEYS.iter().filter(|key| key.flag.is_some()) {
            let typed = [key.flag_or_path().to_owned(), key.example()];
            let typed = match key.kind {
                Kind::Switch => vec![typed.join("=")],
                _ => typed.to_vec(),
            };
            let matches =
                command().try_get_matches_from(["metad".to_owned()].into_iter().chain(typed)).unwrap();
            let given = KeyFlags::from_arg_matches(&matches).unwrap();
            assert_eq!(given.given(), [(key.path, key.example())]);
        }
        let nothing = command().try_get_matches_from(["metad"]).unwrap();
        assert!(KeyFlags::from_arg_matches(&nothing).unwrap().given().is_empty());
    }

    #[test]
    fn the_help_of_a_flag_has_the_default_and_the_variable_of_its_key() {
        let help = command().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "--meta-leader-lease-secs <SECS> Leader lease in seconds; default: 15 \
             [env: METAD_META__META_LEADER_LEASE_SECS]",
            "--node-id <NAME> Name of this node; default: the host name [env: METAD_NODE__ID]",
            "one per member [env: METAD_STORE__ETCD__ENDPOINTS]",
        ] {
            assert!(help.contains(part), "no {part:?} in {help}");
        }
    }
}
