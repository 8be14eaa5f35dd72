//! Search: several rankings become one.

use std::collections::HashMap;
use std::hash::Hash;

use crate::error::Fault;
use crate::input::invalid;

/// Longest query, in bytes.
pub const MAX_QUERY: usize = 2000;
/// Most tags in one search.
const MAX_TAGS: usize = 50;
const MAX_ROWS: i32 = 1000;
/// Most dimensions of an embedding.
const MAX_DIMENSIONS: usize = 8192;
/// The k of reciprocal rank fusion, as in Cormack, Clarke and Buettcher (2009).
const K: f64 = 60.0;

/// The query, or nothing where it is blank.
pub fn query(text: Option<&str>) -> Result<Option<&str>, Fault> {
    match text.map(str::trim) {
        Some(text) if text.len() > MAX_QUERY => Err(invalid(format!("query has more than {MAX_QUERY} bytes"))),
        text => Ok(text.filter(|text| !text.is_empty())),
    }
}

/// The tags asked for.
pub fn tags(tags: Option<Vec<Option<&str>>>) -> Result<Vec<String>, Fault> {
    let tags = tags.unwrap_or_default();
    if tags.len() > MAX_TAGS {
        return Err(invalid(format!("tags has more than {MAX_TAGS} elements")));
    }
    tags.into_iter().map(|tag| tag.map(str::to_owned).ok_or_else(|| invalid("an element of tags is NULL"))).collect()
}

pub fn max_rows(given: Option<i32>) -> Result<usize, Fault> {
    match given {
        Some(given) if (1..=MAX_ROWS).contains(&given) => Ok(given as usize),
        _ => Err(invalid(format!("max_rows must be between 1 and {MAX_ROWS}"))),
    }
}

/// An embedding: numbers that are finite in single precision, not all of them 0, which has no direction.
pub fn embedding(given: Vec<Option<f64>>) -> Result<Vec<f32>, Fault> {
    if given.is_empty() || given.len() > MAX_DIMENSIONS {
        return Err(invalid(format!("embedding must have 1 to {MAX_DIMENSIONS} dimensions")));
    }
    let numbers: Option<Vec<f32>> = given.into_iter().map(|number| number.map(|number| number as f32)).collect();
    match numbers.filter(|numbers| numbers.iter().all(|number| number.is_finite())) {
        None => Err(invalid("embedding has an element that is not a finite number")),
        Some(numbers) if numbers.iter().all(|number| *number == 0.0) => {
            Err(invalid("embedding is zero in every dimension"))
        }
        Some(numbers) => Ok(numbers),
    }
}

/// Cosine of the angle between two embeddings of the same dimensions.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut product, mut one, mut other) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        product += a * b;
        one += a * a;
        other += b * b;
    }
    product / (one * other).sqrt()
}

/// How well each document fits, given how well each word of the query fits it, 0 where the word is not in it. A word counts the
/// more the fewer of all `total` documents have it (the inverse document frequency of BM25).
pub fn by_rarity(ranks: &[&[f32]], total: usize) -> Vec<f64> {
    let words = ranks.first().map_or(0, |ranks| ranks.len());
    let weight = |word: usize| {
        let having = ranks.iter().filter(|ranks| ranks.get(word).is_some_and(|rank| *rank > 0.0)).count() as f64;
        (1.0 + ((total as f64 - having).max(0.0) + 0.5) / (having + 0.5)).ln()
    };
    let weights: Vec<f64> = (0..words).map(weight).collect();
    ranks.iter().map(|ranks| ranks.iter().zip(&weights).map(|(rank, weight)| f64::from(*rank) * weight).sum()).collect()
}

/// The trigrams of a query as pg_trgm makes them, to tell which texts need not be compared with it.
pub struct Trigrams {
    /// The number of each trigram of the query, from 1, by its code; 0 for all others. `None` where the letters are not ASCII,
    /// whose words depend on the server's locale.
    numbers: Option<Box<[u16]>>,
    count: usize,
}

/// What a trigram has in each place: a blank, a letter or a digit.
const SIGNS: usize = 37;

impl Trigrams {
    pub fn new(query: &str) -> Self {
        let mut count = 0;
        let numbers = query.is_ascii().then(|| {
            let mut numbers = vec![0; SIGNS * SIGNS * SIGNS];
            each_trigram(query, |code| {
                if numbers[code] == 0 {
                    count += 1;
                    numbers[code] = count;
                }
            });
            numbers.into_boxed_slice()
        });
        Trigrams { numbers, count: count.into() }
    }

    /// Neither similarity() nor word_similarity() of the query and the text is more than this: the share of the query's
    /// trigrams that the text has. Other letters than ASCII's separate words here, which only adds trigrams.
    pub fn most_similar(&self, text: &str) -> f32 {
        let Some(numbers) = self.numbers.as_ref().filter(|_| self.count > 0) else { return 1.0 };
        let mut found = vec![false; self.count + 1];
        each_trigram(text, |code| found[usize::from(numbers[code])] = true);
        found[1..].iter().filter(|found| **found).count() as f32 / self.count as f32
    }
}

/// The trigrams of each word, with two blanks before and one after it, as numbers of three digits.
fn each_trigram(text: &str, mut take: impl FnMut(usize)) {
    let (mut code, mut last) = (0, 0);
    for byte in text.bytes().chain([b' ']) {
        let sign = match byte {
            b'a'..=b'z' => byte - b'a' + 1,
            b'A'..=b'Z' => byte - b'A' + 1,
            b'0'..=b'9' => byte - b'0' + 27,
            _ => 0,
        };
        // Between words nothing is taken.
        if sign == 0 && last == 0 {
            continue;
        }
        code = if last == 0 { 0 } else { code % (SIGNS * SIGNS) * SIGNS } + usize::from(sign);
        last = sign;
        take(code);
    }
}

/// One ranking: the best first. What is equally good stands together and has the same rank.
pub struct Ranking<'a, T> {
    /// What it goes by.
    pub name: &'a str,
    /// Groups of what is equally good.
    pub groups: Vec<Vec<T>>,
}

/// One result of the fusion.
#[derive(Debug, PartialEq)]
pub struct Fused<'a, T> {
    pub item: T,
    /// Sum of 1 / (60 + rank) over the rankings.
    pub score: f64,
    /// The rankings that found it.
    pub by: Vec<&'a str>,
}

/// Reciprocal rank fusion. Among equal scores the order of the rankings decides.
pub fn fuse<'a, T: Copy + Eq + Hash>(rankings: &[Ranking<'a, T>]) -> Vec<Fused<'a, T>> {
    let mut fused: Vec<Fused<'a, T>> = Vec::new();
    let mut index: HashMap<T, usize> = HashMap::new();
    for ranking in rankings {
        let mut rank = 1;
        for group in &ranking.groups {
            for item in group {
                let at = *index.entry(*item).or_insert_with(|| {
                    fused.push(Fused { item: *item, score: 0.0, by: Vec::new() });
                    fused.len() - 1
                });
                fused[at].score += 1.0 / (K + f64::from(rank));
                fused[at].by.push(ranking.name);
            }
            rank += group.len() as i32;
        }
    }
    fused.sort_by(|a, b| b.score.total_cmp(&a.score));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_middling_ranks_beat_one_good_one() {
        let rankings = [
            Ranking { name: "text", groups: vec![vec!['a'], vec!['b'], vec!['c']] },
            Ranking { name: "tags", groups: vec![vec!['b', 'd']] },
        ];
        let fused = fuse(&rankings);
        assert_eq!(fused.iter().map(|f| f.item).collect::<String>(), "badc");
        assert_eq!(fused[0].by, ["text", "tags"]);
        assert!((fused[0].score - (1.0 / 62.0 + 1.0 / 61.0)).abs() < 1e-12);
        // d shares the first rank with b; c comes third.
        assert!((fused[2].score - 1.0 / 61.0).abs() < 1e-12 && (fused[3].score - 1.0 / 63.0).abs() < 1e-12);
    }

    #[test]
    fn bounds() {
        assert_eq!(query(Some("  ")).unwrap(), None);
        assert!(query(Some(&"x".repeat(2001))).is_err());
        assert!(tags(Some(vec![None])).is_err() && tags(Some(vec![Some("a"); 51])).is_err());
        assert!(max_rows(None).is_err() && max_rows(Some(0)).is_err() && max_rows(Some(1001)).is_err());
        for bad in [
            vec![],
            vec![None],
            vec![Some(f64::NAN)],
            vec![Some(1e300)],
            vec![Some(0.0), Some(-0.0), Some(1e-300)],
            vec![Some(1.0); 8193],
        ] {
            assert!(embedding(bad).is_err());
        }
    }

    #[test]
    fn angles() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert!((cosine(&[1.0, 2.0], &[2.0, 4.0]) - 1.0).abs() < 1e-12);
        assert!((cosine(&[1.0, 2.0], &[-2.0, -4.0]) + 1.0).abs() < 1e-12);
        // Large and tiny numbers neither overflow nor vanish.
        assert!((cosine(&[f32::MAX, f32::MAX], &[f32::MIN_POSITIVE, f32::MIN_POSITIVE]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn rare_words_count_for_more() {
        // Both have the first word, the first better; only the second has the other.
        let fits = by_rarity(&[&[0.67, 0.0], &[0.24, 0.24]], 2);
        assert!(fits[1] > fits[0]);
        // A word that all have still orders them, and one word alone counts as it fits.
        let fits = by_rarity(&[&[0.6], &[0.2]], 2);
        assert!(fits[0] > fits[1] && fits[1] > 0.0);
        assert!(by_rarity(&[], 5).is_empty());
    }

    #[test]
    fn trigrams_as_pg_trgm_makes_them() {
        let of = |text| {
            let mut all = Vec::new();
            let sign = |digit| char::from(b" abcdefghijklmnopqrstuvwxyz0123456789"[digit % SIGNS]);
            each_trigram(text, |code| all.push([code / SIGNS / SIGNS, code / SIGNS, code].map(sign).iter().collect()));
            all as Vec<String>
        };
        assert_eq!(of("Cat-nap"), ["  c", " ca", "cat", "at ", "  n", " na", "nap", "ap "]);
        assert_eq!(of("Z9"), ["  z", " z9", "z9 "]);
        assert_eq!(of(" -- "), [""; 0]);
        let pdf = Trigrams::new("pdf");
        assert_eq!(pdf.most_similar("Fill in PDF forms"), 1.0);
        assert_eq!(pdf.most_similar("pda"), 0.5);
        assert_eq!(pdf.most_similar("haiku"), 0.0);
        // Whatever depends on the locale is left to the server.
        assert_eq!(Trigrams::new("caf\u{e9}").most_similar("haiku"), 1.0);
        assert_eq!(Trigrams::new("--").most_similar("haiku"), 1.0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_scores_fall(lists in proptest::collection::vec(proptest::collection::hash_set(0u8..30, 0..20), 0..5)) {
            let rankings: Vec<_> = lists.iter().map(|list| Ranking { name: "x", groups: list.iter().map(|item| vec![*item]).collect() }).collect();
            let fused = fuse(&rankings);
            let all: std::collections::HashSet<u8> = lists.iter().flatten().copied().collect();
            prop_assert_eq!(fused.len(), all.len());
            prop_assert!(fused.windows(2).all(|pair| pair[0].score >= pair[1].score));
            for found in &fused {
                prop_assert_eq!(found.by.len(), lists.iter().filter(|list| list.contains(&found.item)).count());
            }
        }
    }
}
