//! The files of a skill: which paths are safe, and how much there may be.

use std::collections::{HashMap, HashSet};

use super::version::File;
use crate::error::{Code, Fault, shorten};
use crate::input::invalid;
use crate::unicode::{folded, suspicious_char};

/// Most files of a skill, its SKILL.md included (SEP-2640).
pub const MAX_FILES: usize = 512;
/// Most bytes of a skill, its SKILL.md included (SEP-2640).
pub const MAX_BYTES: usize = 16 << 20;
/// Longest path, in bytes.
const MAX_PATH: usize = 500;
/// Longest segment of a path, in bytes: what file systems hold.
const MAX_SEGMENT: usize = 255;
/// What programs that work with the files obey without being asked.
const VERSION_CONTROL: [&str; 7] = [".git", "git~1", ".gitmodules", ".hg", ".svn", ".bzr", ".ssh"];
/// Names that are devices on Windows, whatever follows the first dot.
const DEVICES: [&str; 24] = [
    "conin$", "conout$", "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8",
    "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// Why a path could lead somewhere else than below the skill's directory, on some system.
fn unsafe_path(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Some("it is empty or too long");
    }
    if path.starts_with('/') {
        return Some("it is absolute");
    }
    if path.contains(['\\', ':']) {
        return Some("it has a backslash or a colon");
    }
    if path.contains(['*', '?', '"', '<', '>', '|']) {
        return Some("it has a character that Windows cannot have in a name");
    }
    if path.chars().any(|c| c.is_control() || suspicious_char(c).is_some()) {
        return Some("it has a character that is not seen");
    }
    for segment in path.split('/') {
        // What a file system makes of it: one that folds forms sees `．．` as `..`.
        let seen = folded(segment);
        if seen.contains(['*', '?', '"', '<', '>', '|']) {
            return Some("it has a character that stands for one that Windows cannot have in a name");
        }
        if VERSION_CONTROL.contains(&seen.as_str()) {
            return Some("a segment is a directory of a version control system or of SSH, which run what is in it");
        }
        if seen.is_empty() || seen.contains(['/', '\\', ':']) {
            return Some("it has an empty segment, or one that stands for more than one");
        }
        if seen == "." || seen == ".." {
            return Some("it has the segment . or ..");
        }
        if segment.len() > MAX_SEGMENT || seen.ends_with(['.', ' ']) || seen.starts_with(' ') {
            return Some("a segment is too long, or begins or ends with a blank or ends with a dot");
        }
        if DEVICES.contains(&seen.split('.').next().unwrap_or_default()) {
            return Some("a segment is the name of a device");
        }
    }
    None
}

/// Files as they come in, counted and checked one by one.
pub struct Files {
    list: Vec<File>,
    paths: HashMap<String, String>,
    /// Folded paths of the directories above them.
    directories: HashSet<String>,
    bytes: usize,
    most: usize,
}

impl Files {
    /// Empty, for a body of so many bytes.
    pub fn new(body: usize) -> Self {
        Files::up_to(MAX_FILES - 1, body)
    }

    /// The same for so many files, by a contract that allows more of them.
    pub fn up_to(most: usize, body: usize) -> Self {
        Files { list: Vec::new(), paths: HashMap::new(), directories: HashSet::new(), bytes: body, most }
    }

    pub fn add(&mut self, path: &str, content: Vec<u8>) -> Result<(), Fault> {
        if let Some(why) = unsafe_path(path) {
            return Err(invalid(format!("invalid path of a skill's file: \"{}\": {why}", shorten(path))).hint(
                "Write a path below the skill's directory with forward slashes, for example references/terms.md.",
            ));
        }
        let seen = folded(path);
        if seen == "skill.md" {
            return Err(invalid("SKILL.md is the source itself, not one of its files"));
        }
        let clash = |other: &str| {
            invalid(format!(
                "the paths \"{}\" and \"{}\" are the same to some file systems",
                shorten(path),
                shorten(other)
            ))
        };
        if let Some(other) = self.paths.get(&seen) {
            return Err(clash(other));
        }
        if self.directories.contains(&seen) {
            return Err(invalid(format!("\"{}\" is a file and a directory", shorten(path))));
        }
        for (i, _) in seen.match_indices('/') {
            if let Some(other) = self.paths.get(&seen[..i]) {
                return Err(invalid(format!("\"{}\" is a file and a directory", shorten(other))));
            }
            self.directories.insert(seen[..i].to_owned());
        }
        self.bytes += content.len();
        // SKILL.md is one of them.
        if self.list.len() >= self.most || self.bytes > MAX_BYTES {
            let files = self.most + 1;
            return Err(Fault::new(
                Code::ProgramLimitExceeded,
                format!("a skill has at most {files} files and {MAX_BYTES} bytes, SKILL.md included"),
            ));
        }
        self.paths.insert(seen, path.to_owned());
        self.list.push(File { path: path.to_owned(), content });
        Ok(())
    }

    /// All that was added.
    pub fn into_list(self) -> Vec<File> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(paths: &[&str]) -> Result<usize, Fault> {
        let mut files = Files::new(0);
        for path in paths {
            files.add(path, vec![0])?;
        }
        Ok(files.into_list().len())
    }

    #[test]
    fn paths() {
        assert_eq!(
            all(&[
                "a",
                "references/b.md",
                "scripts/.hidden",
                "assets/日本/ü.png",
                "..a",
                "console/x",
                ".gitignore",
                ".github/x"
            ]),
            Ok(8)
        );
        for bad in [
            "",
            "/a",
            "//a",
            "a//b",
            "a/",
            ".",
            "..",
            "./a",
            "a/./b",
            "a/../b",
            "a/..",
            "a\\b",
            "..\\a",
            "C:/a",
            "c:a",
            "a:stream",
            "a\nb",
            "a\0b",
            "a\u{7f}",
            "a\u{202e}b",
            "a\u{200b}",
            "．．/a",
            "a／..／b",
            "a/ ",
            "a./b",
            "a/b.",
            "CON",
            "CONIN$",
            "a*b",
            "a?",
            "a/\"b\"",
            "<a>",
            "a|b",
            "ａ＊",
            ".git/config",
            ".GIT/hooks/x",
            "a/.git",
            "git~1/x",
            "．git/config",
            ".gitmodules",
            "a/.hg/hgrc",
            ".SVN/x",
            ".bzr/x",
            ".ssh/config",
            "nul.txt",
            "x/Com1.md",
            "skill.md",
            "SKILL.MD",
            "ＳＫＩＬＬ.md",
        ] {
            assert!(all(&[bad]).is_err(), "{bad:?}");
        }
        assert!(all(&[&"a".repeat(256)]).is_err() && all(&[&"a/".repeat(300)]).is_err());
        for same in [
            ["a", "a"],
            ["README.md", "readme.MD"],
            ["e\u{301}", "\u{e9}"],
            ["ﬁ", "fi"],
            ["a", "a/b"],
            ["a/b", "A"],
            ["Straße/x", "strasse"],
        ] {
            assert!(all(&same).is_err(), "{same:?}");
        }
    }

    #[test]
    fn limits() {
        let mut files = Files::new(10);
        for i in 0..MAX_FILES - 1 {
            files.add(&format!("f{i}"), vec![]).unwrap();
        }
        assert_eq!(files.add("one", vec![]).unwrap_err().code, Code::ProgramLimitExceeded);
        let mut files = Files::new(10);
        files.add("a", vec![0; MAX_BYTES - 10]).unwrap();
        assert_eq!(files.add("b", vec![0]).unwrap_err().code, Code::ProgramLimitExceeded);
    }

    proptest! {
        #[test]
        fn what_is_let_in_stays_below(path in "[a.\\\\/:~ ．／é]{1,12}") {
            if all(&[&path]).is_ok() {
                let joined = std::path::Path::new("/skill").join(&path);
                prop_assert!(joined.starts_with("/skill"));
                prop_assert!(joined.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
            }
        }
    }
}
