//! Runs one command: no input, plain language, no longer than it may.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// What is read of a command's output at most.
const LIMIT: u64 = 1 << 30;

/// Where tools are that a root shell may not have in its path.
const FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// What a command wrote and succeeded.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    /// Trimmed.
    pub(super) stderr: String,
}

/// Why a command gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No such program.
    #[error("{0} was not found")]
    NotFound(String),
    /// It could not be started or read.
    #[error("{error}")]
    Io {
        /// Why not.
        #[from]
        error: io::Error,
    },
    /// It took too long, and was ended.
    #[error("ended after {} s{}", limit.as_secs_f32(), said(stderr))]
    TimedOut {
        /// What it had.
        limit: Duration,
        /// What it said.
        stderr: String,
    },
    /// It wrote too much.
    #[error("wrote more than {LIMIT} bytes")]
    TooMuch,
    /// It failed.
    #[error("{status}{}", said(stderr))]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// Runs a program with arguments.
pub(super) fn run(arguments: &[&str], timeout: Duration) -> Result<Output, Failure> {
    let (program, rest) = arguments.split_first().ok_or(Failure::NotFound(String::new()))?;
    let path = std::env::var("PATH").map_or(FOLDERS.to_owned(), |own| format!("{own}:{FOLDERS}"));
    let mut child = Command::new(program)
        .args(rest)
        .env("LC_ALL", "C")
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::NotFound((*program).to_owned()),
            _ => Failure::Io { error },
        })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read(stdout));
        let stderr = scope.spawn(|| read(stderr));
        let ended = wait(&mut child, timeout);
        let join = |thread: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let (stdout, stderr) = (join(stdout)?, join(stderr)?);
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        match ended? {
            None => Err(Failure::TimedOut { limit: timeout, stderr }),
            Some(_) if stdout.len() as u64 > LIMIT => Err(Failure::TooMuch),
            Some(status) if status.success() => Ok(Output { stdout, stderr }),
            Some(status) => Err(Failure::Failed { status, stderr }),
        }
    })
}

fn read(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(LIMIT + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// `None`: it took too long. What the command left behind would keep the pipes open, so its whole
/// process group is ended, before its own end is collected: until then nobody else gets its number.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = group.ok_or_else(|| io::Error::other("a process without a number"))?;
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let in_time = loop {
        if waitid(WaitId::Pid(group), look)?.is_some() {
            break true;
        }
        if start.elapsed() >= timeout {
            break false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    // An empty group is what is wanted.
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait()?;
    Ok(in_time.then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_was_written_or_why_not() {
        let run = |script: &str| super::run(&["sh", "-c", script], Duration::from_millis(300));
        let output = run("cat; printf %s $LC_ALL; echo careful >&2").unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_str()), (&b"C"[..], "careful"));
        let cases = [
            ("echo no >&2; exit 3", "exit status: 3: no"),
            ("exit 4", "exit status: 4"),
            ("echo slow >&2; sleep 60", "ended after 0.3 s: slow"),
        ];
        for (script, expected) in cases {
            assert_eq!(run(script).unwrap_err().to_string(), expected);
        }
        // A process that outlives the command doesn't hold us.
        let start = Instant::now();
        assert_eq!(run("sleep 60 & echo done").unwrap().stdout, b"done\n");
        assert!(start.elapsed() < Duration::from_secs(10));
        let error = super::run(&["unmasq-no-such-tool"], Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "unmasq-no-such-tool was not found");
    }

    #[test]
    fn large_output_does_not_block() {
        let output = run(&["head", "-c", "3000000", "/dev/zero"], Duration::from_secs(30)).unwrap();
        assert_eq!(output.stdout.len(), 3_000_000);
    }
}
