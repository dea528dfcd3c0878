//! Parts of a benchmark that run as somebody else: this program again, after it has become that user once. Each reads
//! lines and answers each with a line; it ends with its input.

use crate::{crowd, fair, rpc, trust};
use podsec_tests::people;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Where everybody may run this program: the checkout may lie where only root may look.
const PROGRAM: &str = "/usr/local/bin/podsec-bench";

/// Makes the program available to everybody on this (test) host.
pub fn install() {
    std::fs::copy(std::env::current_exe().expect("own path"), PROGRAM).expect(PROGRAM);
}

/// The helper's side.
pub fn main(kind: &str, arguments: &[String]) {
    match kind {
        "spawn" => spawn(arguments),
        "echo" => rpc::echo(&arguments[0]),
        "one-process" => rpc::one_process(&arguments[0]),
        "probe" => crowd::probe(),
        "hold" => crowd::hold(arguments[0].parse().expect("a count")),
        "flood" => fair::flood(),
        "stall" => fair::stall(),
        "garbage" => fair::garbage(),
        "submit" => trust::submitter(),
        other => panic!("no helper {other}"),
    }
}

/// A helper that runs.
pub struct Helper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts one as that user.
    pub fn start(user: &str, kind: &str, arguments: &[String]) -> Self {
        let mut command = people::command(user, PROGRAM);
        Self::run(command.args(["--helper", kind]).args(arguments))
    }

    /// Starts one as a user that has no account: only his uid matters.
    pub fn start_uid(uid: u32, kind: &str, arguments: &[String]) -> Self {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.args(["--clear-groups", "--reset-env", "--", PROGRAM, "--helper", kind]).args(arguments);
        Self::run(command.current_dir("/"))
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(PROGRAM);
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    /// Sends a line.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("a helper that listens");
    }

    /// Waits for a line.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        assert!(line.ends_with('\n'), "a helper ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// Sends a line and waits for the answer.
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that starts commands and measures how long they take, from before the start to after the end. It is small,
/// has one thread, and gives std no reason to do more than posix_spawn(3), so that all commands cost the same to start.
pub struct Spawner(Helper);

impl Spawner {
    /// One that is that user, for these commands. What stands before a program and has a `=` is put into its environment.
    pub fn start(user: &str, commands: &[Vec<String>]) -> Self {
        Self(Helper::start(user, "spawn", &[serde_json::to_string(commands).expect("strings")]))
    }

    /// Runs the command with that index once.
    pub fn time(&mut self, index: usize) -> Duration {
        let answer = self.0.ask(&index.to_string());
        Duration::from_nanos(answer.parse().unwrap_or_else(|_| panic!("{answer}")))
    }
}

fn spawn(arguments: &[String]) {
    let commands: Vec<Vec<String>> = serde_json::from_str(&arguments[0]).expect("commands");
    let mut commands: Vec<Command> = commands
        .iter()
        .map(|words| {
            let set = words.iter().map_while(|word| word.split_once('='));
            let (program, rest) = words[set.clone().count()..].split_first().expect("a program");
            let mut command = Command::new(program);
            command.envs(set).args(rest).stdin(Stdio::null()).stdout(Stdio::null());
            command
        })
        .collect();
    for line in std::io::stdin().lines() {
        let index: usize = line.expect("text").parse().expect("an index");
        let command = &mut commands[index];
        let start = Instant::now();
        let status = command.status();
        let time = start.elapsed();
        match status {
            Ok(status) if status.success() => println!("{}", time.as_nanos()),
            other => println!("{command:?}: {other:?}"),
        }
    }
}
