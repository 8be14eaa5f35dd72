//! Metrics that are added up, and those that look as if they were.

use crate::jsonb::{Found, find};

/// What run_stats and finish_run() add up, as JSON numbers. Names of tokens: OpenTelemetry, semantic conventions for generative
/// AI.
pub const COUNTED: [&str; 4] =
    ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.cache_read.input_tokens", "cost_usd"];

/// Names that model providers, or older conventions, use for the same; the second is the place in [`COUNTED`].
const OTHER_NAMES: [(&str, usize); 12] = [
    ("input_tokens", 0),
    ("prompt_tokens", 0),
    ("gen_ai.usage.prompt_tokens", 0),
    ("output_tokens", 1),
    ("completion_tokens", 1),
    ("gen_ai.usage.completion_tokens", 1),
    ("cache_read_input_tokens", 2),
    ("cached_tokens", 2),
    ("cost", 3),
    ("total_cost", 3),
    ("total_cost_usd", 3),
    ("usd", 3),
];

/// Members of a jsonb object that somebody may believe to be counted: each with what is wrong with it.
pub fn uncounted(metrics: &[u8]) -> Vec<String> {
    let counted = find(metrics, COUNTED);
    let mut found: Vec<String> = COUNTED
        .iter()
        .zip(&counted)
        .filter(|(_, value)| value.is_some_and(|value| value != Found::Number))
        .map(|(name, _)| format!("\"{name}\" is not a JSON number"))
        .collect();
    let others = find(metrics, OTHER_NAMES.map(|(name, _)| name));
    for ((name, place), value) in OTHER_NAMES.iter().zip(others) {
        if value.is_some() && counted[*place].is_none() {
            found.push(format!("\"{name}\" is not counted, \"{}\" is", COUNTED[*place]));
        }
    }
    found
}
