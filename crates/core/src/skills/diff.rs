//! What differs between two versions, as unified diffs.

use std::time::{Duration, Instant};

use similar::{ChangeTag, TextDiff};

/// Largest text that is compared, in bytes.
pub const MAX_TEXT: usize = 2 << 20;
/// After this long the rest is compared coarsely: the diff is still right, but longer than it must be.
/// Nobody can cancel that meanwhile.
const TIME: Duration = Duration::from_millis(500);

/// One file of which the versions differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// added, removed or changed
    pub change: &'static str,
    /// Lines that came; `None` without a diff.
    pub added: Option<i32>,
    pub removed: Option<i32>,
    /// The unified diff, which patch(1) takes; `None` for what is not text, or too large.
    pub diff: Option<String>,
}

/// Until when the files of one answer are compared exactly.
pub fn deadline() -> Instant {
    Instant::now() + TIME
}

fn text(bytes: &[u8]) -> Option<&str> {
    (bytes.len() <= MAX_TEXT && !bytes.contains(&0)).then(|| std::str::from_utf8(bytes).ok()).flatten()
}

/// Compares a file of two versions; `None` where it is the same in both.
pub fn difference(path: &str, a: Option<&[u8]>, b: Option<&[u8]>, deadline: Instant) -> Option<Difference> {
    let change = match (a, b) {
        (None, None) => return None,
        (Some(a), Some(b)) if a == b => return None,
        (None, Some(_)) => "added",
        (Some(_), None) => "removed",
        (Some(_), Some(_)) => "changed",
    };
    let (Some(old), Some(new)) = (text(a.unwrap_or_default()), text(b.unwrap_or_default())) else {
        return Some(Difference { change, added: None, removed: None, diff: None });
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let diff = TextDiff::configure().timeout(left).diff_lines(old, new);
    let count = |tag| Some(diff.iter_all_changes().filter(|line| line.tag() == tag).count() as i32);
    let name =
        |side: char, there: Option<&[u8]>| there.map_or_else(|| "/dev/null".to_owned(), |_| format!("{side}/{path}"));
    let (added, removed) = (count(ChangeTag::Insert), count(ChangeTag::Delete));
    let text = diff.unified_diff().context_radius(3).header(&name('a', a), &name('b', b)).to_string();
    Some(Difference { change, added, removed, diff: Some(text) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(a: &str, b: &str) -> Option<Difference> {
        difference("SKILL.md", Some(a.as_bytes()), Some(b.as_bytes()), deadline())
    }

    #[test]
    fn lines_that_came_and_went() {
        let found = of("a\nb\nc\n", "a\nx\nc\n").unwrap();
        assert_eq!(found.diff.as_deref(), Some("--- a/SKILL.md\n+++ b/SKILL.md\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"));
        assert_eq!((found.change, found.added, found.removed), ("changed", Some(1), Some(1)));
        assert_eq!(of("same", "same"), None);
        assert!(of("a\n", "a").unwrap().diff.unwrap().contains("\\ No newline at end of file"));
        assert!(of("a\n", "a\r\n").is_some());
        let added = difference("x.sh", None, Some(b"1\n2\n"), deadline()).unwrap();
        assert_eq!((added.change, added.added, added.removed), ("added", Some(2), Some(0)));
        assert!(added.diff.unwrap().starts_with("--- /dev/null\n+++ b/x.sh\n"));
    }

    #[test]
    fn what_is_no_text_has_no_diff() {
        for (a, b) in [(&b"\xff\n"[..], &b"a\n"[..]), (b"a\0", b"b"), (b"a", &vec![b'x'; MAX_TEXT + 1])] {
            let found = difference("x.bin", Some(a), Some(b), deadline()).unwrap();
            assert_eq!((found.change, found.diff, found.added), ("changed", None, None));
        }
    }

    #[test]
    fn the_time_is_bounded() {
        // Two texts without a common line and of many lines: the worst case of the algorithm.
        let lines =
            |seed: u64| (0..200_000u64).map(|i| format!("{}\n", (i * 7919 + seed) % 100_003)).collect::<String>();
        let begun = Instant::now();
        let found = of(&lines(1), &lines(50_000)).unwrap();
        assert!(found.diff.is_some());
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    /// Applies a unified diff, as patch(1) does.
    fn patched(a: &str, diff: &str) -> String {
        let old: Vec<&str> = a.split_inclusive('\n').collect();
        let (mut at, mut out) = (0, String::new());
        let mut lines = diff.split_inclusive('\n').skip(2).peekable();
        while let Some(line) = lines.next() {
            if let Some(header) = line.strip_prefix("@@ -") {
                let mut range = header.split([' ', ',']);
                let start: usize = range.next().unwrap().parse().unwrap();
                let empty = header.split(' ').next().unwrap().ends_with(",0");
                let start = if empty { start } else { start - 1 };
                out.extend(old[at..start].iter().copied());
                at = start;
                continue;
            }
            let bare = lines.peek().is_some_and(|next| next.starts_with('\\'));
            let content = if bare { line[1..].strip_suffix('\n').unwrap_or(&line[1..]) } else { &line[1..] };
            match line.as_bytes()[0] {
                b' ' => (out.push_str(content), at += 1).1,
                b'-' => at += 1,
                b'+' => out.push_str(content),
                _ => {}
            }
        }
        out.extend(old[at..].iter().copied());
        out
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_one_to_the_other(a in "([abc]{0,2}\n){0,30}[ab]?", b in "([abc]{0,2}\n){0,30}[ab]?") {
            if let Some(found) = of(&a, &b) {
                prop_assert_eq!(patched(&a, &found.diff.unwrap()), b);
            }
        }
    }
}
