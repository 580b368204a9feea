//! The programs that serve a disk over vhost-user, and how each is started.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long a device that polls looks for requests before it sleeps: longer than any pause that
/// a client makes which has requests in flight.
const POLL_US: u32 = 50;

/// What carries out the I/O of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    /// `examples/vhost-user-blk`, with `--engine`.
    Ours(&'static str),
    /// qemu-storage-daemon, with `aio=`.
    Qemu(&'static str),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(engine) => write!(f, "vhost-user-blk/{engine}"),
            Self::Qemu(aio) => write!(f, "qemu-storage-daemon/{aio}"),
        }
    }
}

/// Where the programs are; `None` for one that isn't there.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) ours: Option<PathBuf>,
    pub(crate) qemu: Option<PathBuf>,
}

/// What a program is to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serving<'a> {
    pub(crate) program: Program,
    pub(crate) polls: bool,
    pub(crate) queues: u16,
    /// Descriptors of a queue; qemu-storage-daemon takes what the driver says.
    pub(crate) queue_size: u16,
    pub(crate) image: &'a Path,
    pub(crate) socket: &'a Path,
}

impl Paths {
    pub(crate) fn of(&self, program: Program) -> Option<&Path> {
        match program {
            Program::Ours(_) => self.ours.as_deref(),
            Program::Qemu(_) => self.qemu.as_deref(),
        }
    }
}

impl Serving<'_> {
    /// The command that serves it with the binary at `path`.
    pub(crate) fn command(&self, path: &Path) -> Command {
        let Self { program, polls, queues, queue_size, image, socket } = *self;
        let mut command = Command::new(path);
        match program {
            Program::Ours(engine) => {
                command.arg("--socket").arg(socket).arg("--image").arg(image);
                command.args(["--engine", engine]);
                command.args(["--queues".to_owned(), queues.to_string()]);
                command.args(["--queue-size".to_owned(), queue_size.to_string()]);
                command.args(["--poll-us".to_owned(), (POLL_US * u32::from(polls)).to_string()]);
            }
            Program::Qemu(aio) => {
                let (image, socket) = (comma(image), comma(socket));
                command.args([
                    "--object".to_owned(),
                    format!("iothread,id=io,poll-max-ns={}", POLL_US * 1000 * u32::from(polls)),
                    "--blockdev".to_owned(),
                    format!("driver=file,node-name=disk,filename={image},aio={aio}"),
                    "--export".to_owned(),
                    format!(
                        "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,\
                         addr.path={socket},writable=on,num-queues={queues},iothread=io"
                    ),
                ]);
            }
        }
        command
    }
}

/// A path as QEMU's options take it: a comma is doubled.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(program: Program, polls: bool) -> String {
        let (image, socket) = (Path::new("/a,b"), Path::new("/s"));
        let command = Serving { program, polls, queues: 2, queue_size: 512, image, socket }
            .command(Path::new("program"));
        command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_says_engine_queues_and_polling() {
        assert_eq!(
            arguments(Program::Ours("sync"), true),
            "--socket /s --image /a,b --engine sync --queues 2 --queue-size 512 --poll-us 50"
        );
        assert!(arguments(Program::Ours("io_uring"), false).ends_with("--poll-us 0"));
        let qemu = arguments(Program::Qemu("threads"), true);
        for part in ["poll-max-ns=50000", "filename=/a,,b,aio=threads", "num-queues=2"] {
            assert!(qemu.contains(part), "{part} in {qemu}");
        }
        assert!(arguments(Program::Qemu("threads"), false).contains("poll-max-ns=0"));
    }
}
