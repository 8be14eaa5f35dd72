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

    /// Every path is meant.
    pub(super) fn is_every_path(&self) -> bool {
        matches!(&self.program, Program::Path(path) if path.is_root())
    }

    /// The program as it is written.
    pub(super) fn program(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// Some argument is left to the caller.
    pub(super) fn takes_arguments(&self) -> bool {
        self.arguments.as_ref().is_none_or(|(patterns, any)| *any || patterns.contains(&None))
    }

    /// Whether it lets a program run, with some arguments; `path` is the program as an effect of `fs.exec`, where it is one.
    pub(super) fn runs(&self, program: &str, path: Option<&Effect<'_>>) -> bool {
        match &self.program {
            Program::Name(name) => **name == *program,
            Program::Path(rule) => path.is_some_and(|path| rule.covers(path)),
        }
    }

    /// Whether it lets a command run; `path` as for [`Command::runs`].
    pub(super) fn matches(&self, argv: &[&str], path: Option<&Effect<'_>>) -> bool {
        self.runs(argv[0], path)
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
