//! Ranges of leaves that retirements name.

use serde_json::Value;

/// The first leaf, and the one after the last.
type Range = (u64, u64);

/// `event_data.leaves` of a retirement: a text such as `{[0,5),[7,9)}`.
pub fn retired_ranges(event_data: &str) -> Option<Vec<Range>> {
    let data: Value = serde_json::from_str(event_data).ok()?;
    multirange(data.get("leaves")?.as_str()?)
}

fn multirange(text: &str) -> Option<Vec<Range>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let inner = inner.strip_prefix('[')?.strip_suffix(')')?;
    let range = |range: &str| {
        let (from, to) = range.split_once(',')?;
        let (from, to) = (from.parse::<u64>().ok()?, to.parse::<u64>().ok()?);
        (from < to).then_some((from, to))
    };
    inner.split("),[").map(range).collect()
}

/// The parts of `runs` that no range covers. Both ascend; ranges may overlap.
pub fn uncovered(runs: &[Range], ranges: &[Range]) -> Vec<Range> {
    let (mut open, mut ranges) = (Vec::new(), ranges.iter().peekable());
    for &(mut from, to) in runs {
        while let Some(&&(start, end)) = ranges.peek().filter(|(start, _)| *start < to && from < to) {
            if start > from {
                open.push((from, start));
            }
            from = from.max(end);
            // One that reaches into the next run is still needed.
            if end < to {
                ranges.next();
            }
        }
        if from < to {
            open.push((from, to));
        }
    }
    open
}
