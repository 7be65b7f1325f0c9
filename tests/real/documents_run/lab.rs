//! Runs a page's blocks in their order, in one shell on one machine of a laboratory of namespaces.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use super::Scene;
use super::pages::Block;
use crate::support::install::EtcdInstall;
use crate::support::spawn;

const TIMEOUT: Duration = Duration::from_secs(200);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/documents_run/lab.sh");
/// Told of each command that fails, and of each that does not exist.
const PROLOGUE: &str = r#"
exec 2>&1
trap 'code=$?; printf "\002%s %s\n" "$code" "$BASH_COMMAND"' ERR
command_not_found_handle() { printf '\002127 %s\n' "$1"; return 127; }
export -f command_not_found_handle
"#;

/// What happened in a laboratory.
#[derive(Debug)]
pub struct Told {
    /// What each block printed.
    pub printed: Vec<String>,
    /// The commands that failed in it, each with its code.
    pub failed: Vec<Vec<(i32, String)>>,
    /// All logs of all machines, and all that was printed.
    pub everything: String,
}

/// Prepares a scene and runs these blocks in it.
///
/// # Errors
/// It did not get to the end of the last block: what was said until then.
pub fn run(scene: &Scene, blocks: &[&Block]) -> Result<Told, String> {
    let mut script = PROLOGUE.to_owned();
    for (i, block) in blocks.iter().enumerate() {
        let happens = scene.meanwhile.iter().filter(|(at, _)| *at == i).map(|(_, what)| *what);
        script.extend(happens.map(|what| format!("{{ {what}; }} >/dev/null 2>&1 || :\n")));
        script += &format!("printf '\\001{i}\\n'\n{}", block.commands);
    }
    script += "printf '\\001end\\n'\n";
    let (prepare, session) = (written(scene.prepare), written(&script));
    let folder = tempfile::tempdir().expect("a folder");
    let install = EtcdInstall::that_restores();
    let mut command = Command::new("unshare");
    spawn::remove_env(&mut command, "METAD_");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", SCRIPT]);
    command.arg(folder.path()).arg(prepare.path()).arg(scene.host).arg(session.path());
    command.env("LAB_METAD", spawn::metad_program()).env("LAB_ROOT", env!("CARGO_MANIFEST_DIR"));
    command.env("LAB_ETCD", &install.etcd).env("LAB_ETCDCTL", &install.etcdctl);
    let output = spawn::output(command, TIMEOUT);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !said.contains("\u{1}end\n") {
        return Err(format!("{:?} was not run to its end:\n{said}\n{errors}", scene.section));
    }
    Ok(told(&said, blocks.len()))
}

fn written(script: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(script.as_bytes()).expect("written");
    file
}

fn told(said: &str, blocks: usize) -> Told {
    let parts: Vec<&str> = said.split('\u{1}').collect();
    let of = |i: usize| {
        let part = parts.iter().find_map(|p| p.strip_prefix(&format!("{i}\n")));
        part.unwrap_or_else(|| panic!("block {i} was not begun: {said}"))
    };
    let printed = |i: usize| of(i).lines().filter(|l| !l.starts_with('\u{2}')).collect::<Vec<_>>().join("\n");
    let failure = |line: &str| {
        let (code, command) = line.split_once('\u{2}')?.1.split_once(' ')?;
        Some((code.parse().ok()?, command.to_owned()))
    };
    let failed = |i: usize| of(i).lines().filter_map(failure).collect();
    Told {
        printed: (0..blocks).map(printed).collect(),
        failed: (0..blocks).map(failed).collect(),
        everything: parts.concat(),
    }
}
