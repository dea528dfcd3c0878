//! `podsec-peer`, the caller of the attacks (`e2e/tools/peer.rs` says what he can do), and what he was answered.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Where everybody of the test host can run him.
pub const PATH: &str = "/usr/local/bin/podsec-peer";

/// Puts the program there, once.
pub fn install(built: &str) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| _ = std::fs::copy(built, PATH).expect(built));
}

/// With ids of his own choice; nothing here asks NSS.
pub fn numeric(options: &str) -> Command {
    let mut command = Command::new(PATH);
    command.env_clear().current_dir("/").stdin(Stdio::null()).args(options.split_whitespace());
    command
}

/// One who is a user of the host.
pub fn user(user: &str) -> Command {
    crate::people::command(user, PATH)
}

/// The words of calls.
pub fn calls<'a>(methods: &[&'a str]) -> Vec<&'a str> {
    methods.iter().flat_map(|&method| ["call", method]).collect()
}

/// Runs him to his end: his answers.
pub fn answers(command: &mut Command, words: &[&str]) -> Vec<Value> {
    let output =
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("podsec-peer");
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let calls = words.iter().filter(|&&word| word == "call").count();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(answers.len(), calls, "{command:?}: {}\n{text}{told}", output.status);
    answers
}

/// The one answer to one call.
pub fn answer(command: &mut Command, method: &str) -> Value {
    answers(command, &["call", method]).remove(0)
}

/// A peer who pauses.
pub struct Live {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Live {
    /// Starts him.
    pub fn start(command: &mut Command, words: &[&str]) -> Self {
        let mut child =
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("podsec-peer");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// His pid, as long as what he was started by has only been exec'ed.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// What he was answered up to the next pause, or his end.
    pub fn answers(&mut self) -> Vec<Value> {
        let values = self
            .lines
            .by_ref()
            .map(|line| -> Value { serde_json::from_str(&line.expect("text")).expect("JSON") });
        values.take_while(|value| value.get("paused").is_none()).collect()
    }

    /// Ends a pause.
    pub fn go_on(&mut self) -> Vec<Value> {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("he waits");
        self.answers()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Was it refused to him as to everybody whom it is not for?
pub fn assert_denied(answer: &Value) {
    assert_eq!(answer["code"], 7, "{answer}");
    assert_eq!(answer["reason"], "not-authorised", "{answer}");
    let method = answer["call"].as_str().expect("a call");
    let told = answer["message"].as_str().expect("a message");
    assert!(told.starts_with(&format!("not authorised: {method} is for ")), "{answer}");
}

/// Was it done?
pub fn assert_done(answer: &Value) {
    assert_eq!(answer["code"], 0, "{answer}");
    if answer["call"] == "NamespaceService/Enter" {
        assert_eq!(answer["answer"]["exit"], 0, "{answer}");
        let host = std::fs::read_link("/proc/self/ns/user").expect("/proc");
        assert_ne!(answer["answer"]["out"], host.to_str().expect("text"), "{answer}");
    }
}

/// How long the answer took.
pub fn took(answer: &Value) -> Duration {
    Duration::from_millis(answer["ms"].as_u64().expect("ms"))
}
