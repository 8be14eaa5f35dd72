//! Commands: the entries of `allowed_exec`, and programs that run other programs.

use std::rc::Rc;

use super::effect::Effect;
use crate::unicode::suspicious_char;

/// One entry of `allowed_exec`.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) text: Rc<str>,
    pub(super) source: Rc<str>,
    program: Program,
    /// `None`: any arguments.
    arguments: Option<(Vec<Option<Box<str>>>, bool)>,
}

#[derive(Debug, Clone)]
enum Program {
    /// Found through the search path of the caller: must be asked for by the same bare name.
    Name(Box<str>),
    Path(Effect<'static>),
}

/// Programs that run another one, which their arguments or their input names.
const LAUNCHERS: [&str; 56] = [
    "ash",
    "awk",
    "bash",
    "bun",
    "busybox",
    "chroot",
    "cmd",
    "csh",
    "dash",
    "deno",
    "doas",
    "docker",
    "env",
    "exec",
    "expect",
    "find",
    "fish",
    "flock",
    "gawk",
    "ionice",
    "ksh",
    "ld.so",
    "lua",
    "mawk",
    "mksh",
    "nice",
    "node",
    "nohup",
    "nsenter",
    "osascript",
    "parallel",
    "perl",
    "php",
    "pkexec",
    "podman",
    "powershell",
    "pwsh",
    "python",
    "rbash",
    "ruby",
    "runuser",
    "script",
    "setsid",
    "sh",
    "ssh",
    "start",
    "stdbuf",
    "strace",
    "su",
    "sudo",
    "tcsh",
    "time",
    "timeout",
    "unshare",
    "watch",
    "xargs",
];

/// Whether a program, by name or path, runs others. A version may end its name: python3.12.
pub(super) fn runs_programs(program: &str) -> bool {
    let name = program.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
    let name = [".exe", ".com", ".bat"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    [name, base].iter().any(|name| LAUNCHERS.contains(name) || *name == "zsh" || *name == "systemd-run")
}

/// The programs that the arguments of such a program may name: whole arguments, and the words in them.
pub(super) fn programs_in<'a>(arguments: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    arguments.iter().flat_map(move |argument| {
        let words = argument.split(move |c| !in_name(c)).map(|word| word.trim_start_matches('-'));
        std::iter::once(*argument).chain(words).filter(|word| !word.is_empty())
    })
}

impl Command {
    pub(super) fn parse(text: &str, source: &Rc<str>) -> Option<Self> {
        let unseen = |c: char| c.is_control() || suspicious_char(c).is_some() || (c.is_whitespace() && c != ' ');
        if text.is_empty() || text.len() > 1024 || text.chars().any(unseen) {
            return None;
        }
        let mut words = text.split(' ');
        let first = words.next()?;
        let program = if first.contains('/') {
            Program::Path(Effect::parse_rule(&format!("fs.exec:{first}")).ok()?.into_owned())
        } else if first.is_empty() || first.contains(['*', '\\']) {
            return None;
        } else {
            Program::Name(first.into())
        };
        let mut arguments = Vec::new();
        let mut any = false;
        let mut count = 0;
        for word in words {
            count += 1;
            match word {
                "" => return None,
                _ if any => return None,
                "**" => any = true,
                "*" => arguments.push(None),
                _ => arguments.push(Some(word.into())),
            }
        }
        Some(Command {
            text: text.into(),
            source: source.clone(),
            program,
            arguments: (count > 0).then_some((arguments, any)),
        })
    }

    /// The program as it is written.
    pub(super) fn program(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// Some argument is left to the caller.
    pub(super) fn takes_arguments(&self) -> bool {
        self.arguments.as_ref().is_none_or(|(patterns, any)| *any || patterns.contains(&None))
    }

    /// Whether it lets a command run; `path` is its program as an effect of `fs.exec`, where it is one.
    pub(super) fn matches(&self, argv: &[&str], path: Option<&Effect<'_>>) -> bool {
        let program = match &self.program {
            Program::Name(name) => **name == *argv[0],
            Program::Path(rule) => path.is_some_and(|path| rule.covers(path)),
        };
        program
            && match &self.arguments {
                None => true,
                Some((patterns, any)) => {
                    let given = &argv[1..];
                    (given.len() == patterns.len() || (*any && given.len() > patterns.len()))
                        && patterns.iter().zip(given).all(|(p, g)| p.as_ref().is_none_or(|p| **p == **g))
                }
            }
    }
}
