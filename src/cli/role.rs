//! `metad doctor --role`: etcd's commands for a user that may do what metad does, and nothing else.

use super::args::SettingArgs;
use super::{Failure, output, settings};
use crate::store::codec::Keys;

/// Who logs in where `store.etcd.username` names nobody.
const USER: &str = "metad";

pub(super) fn print(args: &SettingArgs) -> Result<i32, Failure> {
    let config = settings::load(args)?.config;
    let keys = Keys::new(&config.node.cluster, &config.meta.group);
    output::print(&commands(config.store.etcd.username.as_deref().unwrap_or(USER), keys.prefix())).map(|()| 0)
}

/// Leases, the member list and the status of members need no permission: etcd lets every user of it have them.
fn commands(user: &str, prefix: &str) -> String {
    let user = shell_word(user);
    let prefix = shell_word(prefix);
    format!(
        "# A user of etcd for metad, which may read and write {prefix}* and nothing else. Run this as etcd's root user.\n\
         etcdctl user add {user}   # asks for the password; store.etcd.password_file holds it\n\
         etcdctl role add {user}\n\
         etcdctl role grant-permission {user} --prefix=true readwrite {prefix}\n\
         etcdctl user grant-role {user} {user}\n"
    )
}

/// One word for a shell, whatever is in it.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_for_the_shell() {
        let said = commands("o'neil $(id)", "/metad/prod/");
        assert!(said.contains("etcdctl role add 'o'\\''neil $(id)'\n"), "{said}");
        assert!(said.contains("readwrite /metad/prod/\n"), "{said}");
    }
}
