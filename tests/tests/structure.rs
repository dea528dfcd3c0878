//! What the compiler does not hold the source to: who may link what, where `unsafe` may stand, how large the gate may
//! get, and that docs/threats.md names functions and tests that exist.
//!
//! Reads the checkout and asks cargo; needs no root, no network and no build.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most lines of code in the gate, comments and tests apart: what one person can read in an afternoon.
/// 1,500 are the aim.
const GATE_LINES: usize = 1500;
/// Most crates that the gate names in its own Cargo.toml.
const GATE_DEPENDENCIES: usize = 12;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Runs cargo on this workspace, without the network and with the versions of Cargo.lock.
fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).args(["--offline", "--locked"]).current_dir(top());
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every file of the checkout below `directory` whose name ends so, with its path from the top. What was compiled, and
/// git's own, is passed over.
fn files(directory: &str, end: &str) -> Vec<(String, String)> {
    let mut waiting = vec![top().join(directory)];
    let mut found = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            let name = path.strip_prefix(top()).unwrap().to_str().expect("a name in UTF-8").to_owned();
            if kind.is_dir() && !["target", ".git"].contains(&name.as_str()) {
                waiting.push(path);
            } else if kind.is_file() && name.ends_with(end) {
                found.push((name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file of {directory} ends in {end:?}");
    found
}

/// A Rust source with every comment and the contents of every literal blanked out, line by line as it was (the Rust
/// Reference, chapter "Lexical structure"). A word that is left is a word of code.
fn code(source: &str) -> String {
    let (mut code, mut rest) = (String::new(), source);
    while let Some(first) = rest.chars().next() {
        let length = literal(rest, code.chars().last()).or_else(|| comment(rest));
        let (piece, after) = rest.split_at(length.unwrap_or(first.len_utf8()));
        match length {
            Some(_) => code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(piece),
        }
        rest = after;
    }
    code
}

/// The length of the comment that begins here; block comments nest.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let (mut depth, mut at) = (0, 0);
    loop {
        let rest = &text[at..];
        (depth, at) = match rest.chars().next() {
            Some(_) if rest.starts_with("/*") => (depth + 1, at + 2),
            Some(_) if rest.starts_with("*/") && depth > 0 => (depth - 1, at + 2),
            Some(c) if depth > 0 => (depth, at + c.len_utf8()),
            _ => return (at > 0).then_some(at),
        };
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The length of the string, byte string, raw string or character that begins here; a lifetime is none.
fn literal(text: &str, before: Option<char>) -> Option<usize> {
    let starts_word = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let prefix = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (prefix, rest) = text.split_at(if starts_word { prefix } else { 0 });
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if ["r", "br", "cr"].contains(&prefix) && rest[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = &rest[hashes + 1..];
        return Some(prefix.len() + hashes + 1 + body.find(&end)? + end.len());
    }
    let quote = rest.chars().next().filter(|&c| c == '"' || c == '\'')?;
    if !["", "b", "c"].contains(&prefix) {
        return None;
    }
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => _ = chars.next(),
            c if c == quote => return Some(prefix.len() + at + 1),
            // 'a and no quote after it: a lifetime.
            _ if quote == '\'' && !rest[at + c.len_utf8()..].starts_with('\'') => return None,
            _ => {}
        }
    }
    None
}

/// The same without its unit tests, which by the custom of this workspace are the last item of a file.
fn code_without_tests(source: &str) -> String {
    let code = code(source);
    let end =
        code.find("#[cfg(test)]\nmod tests").or_else(|| code.find("#[cfg(test)]\npub(crate) mod tests"));
    code[..end.unwrap_or(code.len())].to_owned()
}

/// Positions, from line 1, of a whole word.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let has = |line: &str| line.split(|c| !is_part(c)).any(|found| found == word);
    code.lines().enumerate().filter(|(_, line)| has(line)).map(|(index, _)| index + 1).collect()
}

#[test]
fn the_reader_of_rust_tells_code_from_the_rest() {
    let source = r####"a "unsafe" b // unsafe
/* unsafe /* unsafe */ unsafe */ c b"\"unsafe" r#"un"safe"# '"' d '\'' &'e str br"unsafe" "\\" unsafe_code
unsafe { x::<'f>('g', "ü'") }"####;
    let code = code(source);
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(
        words,
        ["a", "b", "c", "d", "&'e", "str", "unsafe_code", "unsafe", "{", "x::<'f>(", ",", ")", "}"]
    );
    assert_eq!(lines_with(&code, "unsafe"), [3]);
    assert_eq!(code_without_tests("a\n#[cfg(test)]\nmod tests {\n    b\n}\n"), "a\n");
}

/// The gate is root for as long as the host is up. What it links, an attacker may reach; so nothing that parses HTTP/2
/// or protobuf, and nothing that brings threads, is linked.
#[test]
fn the_gate_links_no_runtime_and_no_grpc() {
    for (package, forbidden) in [
        (
            "podsecd",
            &["tokio", "mio", "hyper", "h2", "http", "tonic", "tower", "prost", "tracing-subscriber"][..],
        ),
        ("podsecd-worker", &["tokio", "mio", "hyper", "h2", "tonic", "prost"]),
        ("podsec-u7s", &["tokio", "mio", "hyper", "h2", "tonic", "prost"]),
    ] {
        let tree = cargo(&["tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"]);
        let linked: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(linked.contains(package), "cargo tree says nothing of {package}:\n{tree}");
        for name in forbidden {
            assert!(
                !linked.contains(name),
                "{package} links {name} now. What needs it belongs into podsecd-front or podsecctl; who brought it, \
                 says: cargo tree -p {package} -e normal -i {name}"
            );
        }
    }
}

#[test]
fn the_gate_stays_small() {
    let tree = cargo(&["tree", "-p", "podsecd", "-e", "normal", "--depth", "1", "--prefix", "none"]);
    let direct = tree.lines().count() - 1;
    assert!(
        (1..=GATE_DEPENDENCIES).contains(&direct),
        "podsecd has {direct} direct dependencies, at most {GATE_DEPENDENCIES} are allowed:\n{tree}"
    );
    let mut lines = 0;
    let mut list = String::new();
    for (name, source) in files("podsecd/gate/src", ".rs") {
        let count = code_without_tests(&source).lines().filter(|line| !line.trim().is_empty()).count();
        lines += count;
        list += &format!("\n{count:6} {name}");
    }
    assert!(lines > 100, "counted only {lines} lines of the gate:{list}");
    assert!(
        lines <= GATE_LINES,
        "podsecd has {lines} lines of code, at most {GATE_LINES} are allowed: can a worker do what is new?{list}"
    );
    println!("podsecd: {lines} lines of code, {direct} direct dependencies");
}

#[test]
fn unsafe_is_in_podsec_sys_alone() {
    for (name, source) in files("", ".rs") {
        let lines = lines_with(&code(&source), "unsafe");
        assert!(
            lines.is_empty() || name.starts_with("podsecd/sys/src/"),
            "{name} has `unsafe` in line {lines:?}: wrap the call in podsec-sys, so that it cannot be misused"
        );
    }
}

#[test]
fn every_other_crate_forbids_unsafe() {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let mut roots = 0;
    for package in metadata["packages"].as_array().unwrap() {
        for target in package["targets"].as_array().unwrap() {
            let kind = target["kind"][0].as_str().unwrap();
            let path = PathBuf::from(target["src_path"].as_str().unwrap());
            if !["lib", "bin"].contains(&kind) || package["name"] == "podsec-sys" {
                continue;
            }
            roots += 1;
            let source = std::fs::read_to_string(&path).unwrap();
            assert!(
                code(&source).lines().any(|line| line.trim() == "#![forbid(unsafe_code)]"),
                "{}: the root of a crate begins with #![forbid(unsafe_code)]",
                path.display()
            );
        }
    }
    assert!(roots >= 9, "only {roots} crate roots found");
}

/// 1 would open a process of ours to ptrace(2) by whatever else runs as its user (CVE-2016-8659).
#[test]
fn dumpable_is_only_ever_switched_off() {
    let mut switched = 0;
    // Tests may try it from inside the front's cage.
    for (name, source) in files("", ".rs").into_iter().filter(|(name, _)| !name.contains("tests/")) {
        let code = code(&source);
        let raw = lines_with(&code, "PR_SET_DUMPABLE");
        assert!(raw.is_empty(), "{name}:{raw:?}: by podsec_sys::process::forbid_inspection only");
        for (index, _) in code.match_indices("set_dumpable(") {
            let argument = &code[index + "set_dumpable(".len()..];
            assert!(argument.starts_with("false)"), "{name} switches dumpable to something else than false");
            assert!(
                name.starts_with("podsecd/sys/src/"),
                "{name}: by podsec_sys::process::forbid_inspection only"
            );
            switched += 1;
        }
    }
    assert_eq!(switched, 1, "one function switches it off, and everybody calls that");
}

/// Neither unfinished work, nor tests that do not run, nor a path of the machine that somebody worked on.
#[test]
fn nothing_is_left_lying_about() {
    // In halves, so that this file has none of them.
    let never = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["#[ign", "ore"],
        ["/wo", "rk/"],
        ["/root/.ca", "rgo"],
        ["/root/.rus", "tup"],
        ["../sha", "red"],
        ["Co-Autho", "red-By"],
        ["<<<<", "<<< "],
        [">>>>", ">>> "],
    ];
    for (name, text) in files("", "") {
        for word in never.map(|halves| halves.concat()) {
            let line = text.lines().position(|line| line.contains(&word));
            assert!(line.is_none(), "{name}:{} has {word:?}", line.unwrap_or_default() + 1);
        }
    }
}

#[test]
fn every_crate_comes_from_crates_io() {
    let lock = std::fs::read_to_string(top().join("Cargo.lock")).unwrap();
    let sources: BTreeSet<_> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    assert_eq!(
        sources,
        BTreeSet::from(["\"registry+https://github.com/rust-lang/crates.io-index\""]),
        "Cargo.lock has crates from elsewhere"
    );
}

/// docs/design.md shows podsecd.toml with every default; a file without a key, or with another default, would mislead.
#[test]
fn the_documented_configuration_is_the_default() {
    let text = std::fs::read_to_string(top().join("docs/design.md")).unwrap();
    let block =
        text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of TOML");
    let (mut config, mut section) = (serde_json::Map::new(), String::new());
    for line in block.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim());
            let octal = value.strip_prefix("0o").map(|digits| u32::from_str_radix(digits, 8).unwrap().into());
            let value: serde_json::Value = octal.unwrap_or_else(|| serde_json::from_str(value).unwrap());
            match section.as_str() {
                "" => _ = config.insert(key, value),
                name => {
                    let section = config.entry(name).or_insert_with(|| serde_json::json!({}));
                    section[key] = value;
                }
            }
        }
    }
    let shown: podsec_policy::config::Config = serde_json::from_value(config.clone().into()).unwrap();
    assert_eq!(shown, podsec_policy::config::Config::default());
    // `Config` names its keys when it is printed: those of the sections end in their own braces.
    let printed = format!("{shown:?}");
    for key in printed.split([' ', '{', '}', ',']).filter_map(|word| word.strip_suffix(':')) {
        let is_there = config.contains_key(key) || config.values().any(|section| section.get(key).is_some());
        assert!(is_there, "docs/design.md does not show {key}");
    }
}

/// The words in backquotes in a line of Markdown.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Names of functions in a Rust source, or in a shell script.
fn functions(name: &str, source: &str) -> Vec<String> {
    if !name.ends_with(".rs") {
        return source.lines().filter_map(|line| Some(line.split_once("()")?.0.to_owned())).collect();
    }
    let code = code(source);
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        if word == "fn" {
            found.extend(words.next().map(str::to_owned));
        }
    }
    found
}

/// docs/threats.md says where each attack is stopped, as `file.rs:function`, and which test shows it, as
/// `module::test`. Both must exist, or the table is a wish.
#[test]
fn the_table_of_threats_names_what_exists() {
    let text = std::fs::read_to_string(top().join("docs/threats.md")).unwrap();
    let sources = files("", ".rs");
    let mut tested = sources.clone();
    tested.extend(files("tests/host", "/units"));
    // `enter::commands` is a function `commands` of a file with `enter` on its path. End-to-end tests have names of their
    // own beside: a literal, or their function's behind `attacks::`.
    let (mut names, mut end_to_end) = (BTreeSet::new(), BTreeSet::new());
    for (file, source) in &tested {
        let is_end_to_end = file.starts_with("tests/e2e/");
        let parts = file.trim_end_matches(".rs").split('/').chain(is_end_to_end.then_some("attacks"));
        let functions = functions(file, source);
        let named = parts.flat_map(|part| functions.iter().map(move |name| format!("{part}::{name}")));
        if is_end_to_end {
            end_to_end.extend(named);
            end_to_end.extend(source.split('"').filter(|text| text.contains("::")).map(str::to_owned));
        } else {
            names.extend(named);
        }
    }
    let (mut places, mut tests) = (0, 0);
    for (index, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let at = format!("docs/threats.md:{}", index + 1);
        for word in quoted(line) {
            if let Some((file, item)) = word.split_once(".rs:") {
                places += 1;
                let path = format!("{file}.rs");
                let source = sources.iter().find(|(name, _)| *name == path);
                let (_, source) = source.unwrap_or_else(|| panic!("{at}: there is no {path}"));
                assert!(!lines_with(&code(source), item).is_empty(), "{at}: {path} has no {item}");
            } else if word.contains("::") {
                tests += 1;
                assert!(end_to_end.contains(word) || names.contains(word), "{at}: there is no test {word}");
            }
        }
    }
    assert!(places >= 20 && tests >= 20, "only {places} places and {tests} tests found in docs/threats.md");
}
