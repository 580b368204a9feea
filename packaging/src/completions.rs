//! Completions for shells.

use clap::CommandFactory;
use clap_complete::{Generator, Shell, generate};
use xen_virtio_blk::args::Cli;

/// Each shell's file, by the name that the shell looks for.
pub(crate) fn all() -> Vec<(String, Vec<u8>)> {
    let mut program = Cli::command();
    let name = program.get_name().to_owned();
    let shells = [Shell::Bash, Shell::Zsh, Shell::Fish];
    let files = shells.map(|shell| {
        let mut text = Vec::new();
        generate(shell, &mut program, &name, &mut text);
        // bash finds a completion by the command's bare name.
        let file = if shell == Shell::Bash { name.clone() } else { shell.file_name(&name) };
        (file, text)
    });
    files.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn every_shell_completes_each_command_and_each_option() {
        let files = all();
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["xen-virtio-blk", "_xen-virtio-blk", "xen-virtio-blk.fish"]);
        for (name, text) in &files {
            let text = String::from_utf8_lossy(text);
            for word in ["run", "check", "map-budget", "io_uring"] {
                assert!(text.contains(word), "{name} lacks {word}");
            }
        }
    }

    #[test]
    fn bash_completes_the_options_of_run() {
        if Command::new("bash").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: there is no bash");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("completion");
        std::fs::write(&file, &all()[0].1).unwrap();
        let script = "source \"$0\"; completer=$(complete -p xen-virtio-blk); completer=${completer#*-F }; \
                      COMP_WORDS=(xen-virtio-blk run --map); COMP_CWORD=2; \
                      ${completer%% *} xen-virtio-blk --map run; echo \"${COMPREPLY[@]}\"";
        let said = Command::new("bash").args(["-c", script]).arg(&file).output().unwrap();
        let errors = String::from_utf8_lossy(&said.stderr);
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "--map-budget", "{errors}");
    }
}
