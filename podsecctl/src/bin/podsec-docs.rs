//! `podsec-docs DIRECTORY`: manual pages and shell completions, made from the definitions of the command lines.
//!
//! For packagers; not installed. Writes `man/*.1` and `completions/{bash,zsh,fish}/…` below the directory.
#![forbid(unsafe_code)]

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{Man, roff};
use podsecctl::cli::{self, Cli};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Files = Vec<(PathBuf, Vec<u8>)>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("podsec-docs: one argument: the directory to write to");
        return ExitCode::from(2);
    };
    match all().and_then(|files| write(Path::new(&directory), files)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podsec-docs: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path, files: Files) -> io::Result<()> {
    for (name, contents) in files {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        podsec_sys::file::replace(&path, &contents, 0o644)?;
    }
    Ok(())
}

fn all() -> io::Result<Files> {
    let mut files = Files::new();
    for command in [Cli::command(), podsec_u7s::cli::Cli::command()] {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command.clone(), &name, &mut script);
            let file = match shell {
                Shell::Zsh => format!("_{name}"),
                Shell::Fish => format!("{name}.fish"),
                _ => name,
            };
            files.push((Path::new("completions").join(shell.to_string()).join(file), script));
        }
        pages(command, &mut files)?;
    }
    // The old name's page is that of what it does (man(7), .so).
    files.push(("man/nsenter_u7s.1".into(), b".so man1/podsecctl-enter.1\n".to_vec()));
    Ok(files)
}

/// One page for the program and one for each of its commands.
fn pages(mut program: Command, files: &mut Files) -> io::Result<()> {
    program = program.disable_help_subcommand(true);
    program.build();
    let mut waiting = vec![program];
    while let Some(command) = waiting.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let children = command.get_subcommands().filter(|child| !child.is_hide_set());
        waiting.extend(children.cloned());
        files.push((Path::new("man").join(format!("{name}.1")), page(command, &name)?));
    }
    Ok(())
}

fn page(mut command: Command, name: &str) -> io::Result<Vec<u8>> {
    let usage = command.render_usage().to_string();
    let has_commands = command.has_subcommands();
    let is_ours = name.starts_with("podsecctl");
    let version = format!("podsec {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).title(name).source(version).manual("podsec");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let mut synopsis = roff::Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    for line in usage.trim_start_matches("Usage:").lines() {
        synopsis.text([roff::roman(line.trim())]).control("br", []);
    }
    synopsis.to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    if is_ours {
        let mut sections = roff::Roff::new();
        for (title, terms) in
            [("EXIT STATUS", cli::EXIT_STATUS), ("ENVIRONMENT", cli::ENVIRONMENT), ("FILES", cli::FILES)]
        {
            sections.control("SH", [title]);
            for (term, meaning) in terms {
                sections.control("TP", []).text([roff::bold(*term)]).text([roff::roman(*meaning)]);
            }
        }
        if name != "podsecctl" {
            sections.control("SH", ["SEE ALSO"]).text([roff::bold("podsecctl"), roff::roman("(1)")]);
        }
        sections.to_writer(&mut page)?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(files: &Files, name: &str) -> String {
        let (_, contents) =
            files.iter().find(|(path, _)| path == Path::new(name)).unwrap_or_else(|| panic!("{name}"));
        String::from_utf8(contents.clone()).unwrap()
    }

    #[test]
    fn every_command_has_a_page() {
        let files = all().unwrap();
        for name in [
            "podsecctl",
            "podsecctl-whoami",
            "podsecctl-enter",
            "podsecctl-namespace",
            "podsecctl-namespace-show",
            "podsecctl-port",
            "podsecctl-port-list",
            "podsecctl-port-add",
            "podsecctl-port-remove",
            "podsecctl-user",
            "podsecctl-user-create",
            "podsecctl-user-passwd",
            "podsecctl-user-restrict-idmaps",
            "podsecctl-key",
            "podsecctl-key-generate",
            "podsecctl-key-rotate",
            "podsecctl-key-export",
            "podsecctl-trust",
            "podsecctl-trust-init",
            "podsecctl-trust-check",
            "podsecctl-image-save",
            "podsecctl-image-load",
            "podsecctl-image-list",
            "podsecctl-image-verify",
            "podsecctl-image-mirror",
            "podsecctl-image-push",
            "podsecctl-image-sign",
            "podsecctl-image-signatures",
            "podsecctl-service-deploy",
            "podsecctl-service-credential",
            "podsecctl-check",
            "podsecctl-check-run",
            "podsecctl-check-list",
            "podsecctl-check-show",
            "podsecctl-check-watch",
            "podsecctl-check-explain",
            "podsecctl-check-nagios",
            "podsecctl-audit",
            "podsecctl-audit-list",
            "podsecctl-audit-verify",
            "podsecctl-status",
            "podsecctl-completion",
            "podsec-u7s",
            "podsec-u7s-up",
            "podsec-u7s-status",
            "podsec-u7s-stop",
        ] {
            let page = text(&files, &format!("man/{name}.1"));
            assert!(page.contains(".SH NAME\n") && page.contains(".SH SYNOPSIS\n"), "{name}:\n{page}");
        }
        let names: Vec<_> = files.iter().map(|(path, _)| path.display().to_string()).collect();
        assert!(!names.iter().any(|name| name.contains("help") || name.contains("u7s-child")), "{names:?}");
        let page = text(&files, "man/podsecctl-enter.1");
        for part in [".SH \"EXIT STATUS\"", "PODSEC_SOCKET", "no\\-tty", ".SH \"SEE ALSO\""] {
            assert!(page.contains(part), "{part}:\n{page}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        let files = all().unwrap();
        for name in
            ["completions/bash/podsecctl", "completions/zsh/_podsecctl", "completions/fish/podsecctl.fish"]
        {
            let script = text(&files, name);
            assert!(script.contains("namespace") && script.contains("dry-run"), "{name}");
        }
    }
}
