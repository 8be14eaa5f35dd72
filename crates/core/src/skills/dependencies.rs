//! What skills require of each other, and what keeps them apart.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::names::{is_namespace, storable};
use super::requirement::{Candidate, Range, best, listed};
use crate::error::{Code, Fault, shorten};
use crate::input::invalid;

/// Most entries in `requires`, and in `conflicts`.
const MAX_RELATIONS: usize = 100;
/// Most skills that are looked at together.
const MAX_SKILLS: usize = 1000;
/// Most times that a skill's requirements are followed.
const MAX_STEPS: usize = 10_000;
/// Longest cycle that is written out in full.
const MAX_PATH: usize = 20;

/// A relation of one skill to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It does not work without.
    Requires,
    /// It conflicts with this one.
    Conflicts,
}

impl Kind {
    /// The word in the tables, and the member of the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Requires => "requires",
            Kind::Conflicts => "conflicts",
        }
    }

    /// From the word in the tables.
    pub fn parse(word: &str) -> Option<Self> {
        [Kind::Requires, Kind::Conflicts].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One entry of `requires` or `conflicts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Which of the two.
    pub kind: Kind,
    /// Namespace of the other skill.
    pub namespace: String,
    /// Name of the other skill.
    pub skill_name: String,
    /// Which versions of it; `None` is any.
    pub range: Option<Range>,
}

impl Relation {
    fn admits(&self, candidate: &Candidate) -> bool {
        self.range.as_ref().is_none_or(|range| candidate.semver.as_ref().is_some_and(|semver| range.contains(semver)))
    }

    fn problem(&self, problem: &'static str, by: &Node, skill: &Node, detail: String) -> Problem {
        Problem {
            problem,
            by: by.key.clone(),
            skill: skill.key.clone(),
            range: self.range.as_ref().map(|range| range.text().to_owned()),
            detail,
        }
    }
}

/// The relations in a manifest. A name without a namespace is of the skill's own.
pub fn read(namespace: &str, manifest: Option<&Value>) -> Result<Vec<Relation>, Fault> {
    let mut relations = Vec::new();
    for kind in [Kind::Requires, Kind::Conflicts] {
        let entries = match manifest.and_then(|manifest| manifest.get(kind.as_str())) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(entries)) if entries.len() <= MAX_RELATIONS => entries,
            Some(Value::Array(_)) => {
                return Err(invalid(format!(
                    "{} of the manifest has more than {MAX_RELATIONS} entries",
                    kind.as_str()
                )));
            }
            Some(_) => return Err(malformed(kind, "It is not an array.".into())),
        };
        let mut seen = HashSet::new();
        for (i, entry) in entries.iter().enumerate() {
            let at = |why: &str| malformed(kind, format!("Entry {}: {why}.", i + 1));
            let (name, range) = match entry {
                Value::String(name) => (name.as_str(), None),
                Value::Object(members) => {
                    if let Some(key) = members.keys().find(|key| !matches!(key.as_str(), "skill" | "version")) {
                        return Err(at(&format!("unknown member \"{}\"", shorten(key))));
                    }
                    let name = members.get("skill").and_then(Value::as_str).ok_or_else(|| at("skill is not a text"))?;
                    let range = match members.get("version") {
                        None | Some(Value::Null) => None,
                        Some(Value::String(range)) => Some(Range::parse(range).map_err(|fault| {
                            at(&format!(
                                "{}: {}",
                                fault.message,
                                fault.detail.unwrap_or_default().trim_end_matches('.')
                            ))
                        })?),
                        Some(_) => return Err(at("version is not a text")),
                    };
                    (name, range)
                }
                _ => return Err(at("it is neither text nor object")),
            };
            let (namespace, skill_name) = match name.split_once('/') {
                Some((namespace, rest)) if is_namespace(namespace) => (namespace, rest),
                _ => (namespace, name),
            };
            storable(skill_name).map_err(|fault| at(&fault.message))?;
            if !seen.insert((namespace.to_owned(), skill_name.to_owned())) {
                return Err(at(&format!("skill \"{}\" occurs twice", shorten(skill_name))));
            }
            relations.push(Relation {
                kind,
                namespace: namespace.to_owned(),
                skill_name: skill_name.to_owned(),
                range,
            });
        }
    }
    Ok(relations)
}

fn malformed(kind: Kind, why: String) -> Fault {
    invalid(format!("{} of the manifest cannot be read", kind.as_str())).detail(why).hint(format!(
        "\"{}\": [{{\"skill\": \"namespace/name\", \"version\": \"^1.2\"}}]; version may be left out.",
        kind.as_str()
    ))
}

pub type Key = (String, String);

/// Where skills are looked up.
pub trait Source {
    /// The versions of a skill that may be used; `None` when the skill does not exist.
    fn candidates(&mut self, key: &Key) -> Option<Vec<Candidate>>;
    /// A version's relations to other skills.
    fn relations(&mut self, version: &[u8; 16]) -> Vec<Relation>;
}

/// A skill of the closure in the version that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub key: Key,
    pub candidate: Candidate,
    /// Steps from what was asked for, which is 0.
    pub depth: i32,
    /// Who requires it first; `None` for what was asked for.
    pub required_by: Option<Key>,
}

/// Something that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// missing, version, conflict or cycle; limit where it is too much to look at
    pub problem: &'static str,
    /// The skill that declares it.
    pub by: Key,
    /// The skill it is about.
    pub skill: Key,
    /// The range in question.
    pub range: Option<String>,
    pub detail: String,
}

#[derive(Debug, Default)]
pub struct Resolution {
    /// Everything that is needed, what was asked for first, then by depth.
    pub chosen: Vec<Chosen>,
    /// Why it does not do.
    pub problems: Vec<Problem>,
}

struct Node {
    key: Key,
    /// Empty where the skill does not exist or has no version to use.
    candidates: Vec<Candidate>,
    exists: bool,
    /// Asked for in exactly this version.
    fixed: bool,
    ranges: Vec<Range>,
    chosen: Option<Candidate>,
    relations: Vec<Relation>,
}

struct Graph<'a, S> {
    source: &'a mut S,
    nodes: Vec<Node>,
    index: HashMap<Key, usize>,
}

impl<S: Source> Graph<'_, S> {
    fn node(&mut self, key: &Key) -> Result<usize, Fault> {
        if let Some(node) = self.index.get(key) {
            return Ok(*node);
        }
        if self.nodes.len() >= MAX_SKILLS {
            return Err(Fault::new(Code::ProgramLimitExceeded, format!("more than {MAX_SKILLS} skills hang together")));
        }
        let candidates = self.source.candidates(key);
        self.nodes.push(Node {
            key: key.clone(),
            exists: candidates.is_some(),
            candidates: candidates.unwrap_or_default(),
            fixed: false,
            ranges: Vec::new(),
            chosen: None,
            relations: Vec::new(),
        });
        self.index.insert(key.clone(), self.nodes.len() - 1);
        Ok(self.nodes.len() - 1)
    }

    fn choose(&mut self, node: usize, candidate: Candidate) {
        self.nodes[node].relations = self.source.relations(&candidate.id);
        self.nodes[node].chosen = Some(candidate);
    }

    /// The nodes that a node requires.
    fn required(&self, node: usize) -> impl Iterator<Item = (usize, &Relation)> {
        let of_kind = self.nodes[node].relations.iter().filter(|relation| relation.kind == Kind::Requires);
        of_kind.filter_map(|relation| Some((*self.index.get(&key(relation))?, relation)))
    }
}

fn key(relation: &Relation) -> Key {
    (relation.namespace.clone(), relation.skill_name.clone())
}

/// `namespace/name`
pub fn format_key(key: &Key) -> String {
    format!("{}/{}", key.0, key.1)
}

/// Follows the requirements of the versions asked for. Every skill is taken once, in its highest version that meets all
/// that was required of it on the way; nothing is tried again with a lower version of another skill.
pub fn resolve(roots: Vec<(Key, Candidate)>, source: &mut impl Source) -> Result<Resolution, Fault> {
    let mut graph = Graph { source, nodes: Vec::new(), index: HashMap::new() };
    let mut queue = VecDeque::new();
    let mut asked = Vec::new();
    for (key, candidate) in roots {
        let node = graph.node(&key)?;
        if graph.nodes[node].fixed {
            if graph.nodes[node].chosen.as_ref() != Some(&candidate) {
                return Err(invalid(format!("skill \"{}\" is asked for in two versions", shorten(&key.1))));
            }
            continue;
        }
        graph.nodes[node].fixed = true;
        graph.choose(node, candidate);
        asked.push(node);
        queue.push_back(node);
    }
    let mut steps = 0;
    while let Some(from) = queue.pop_front() {
        steps += 1;
        if steps > MAX_STEPS {
            return Err(Fault::new(Code::ProgramLimitExceeded, "the requirements of the skills are too entangled")
                .detail(format!("Given up after {MAX_STEPS} steps.")));
        }
        let relations: Vec<Relation> =
            graph.nodes[from].relations.iter().filter(|relation| relation.kind == Kind::Requires).cloned().collect();
        for relation in relations {
            let to = graph.node(&key(&relation))?;
            let node = &mut graph.nodes[to];
            node.ranges.extend(relation.range);
            if node.fixed {
                continue;
            }
            let found = best(&node.candidates, &node.ranges.iter().collect::<Vec<_>>());
            if let Some(found) = found.filter(|found| node.chosen.as_ref() != Some(found)).cloned() {
                graph.choose(to, found);
                queue.push_back(to);
            }
        }
    }
    Ok(judge(&graph, &asked))
}

/// What of the graph is needed in the end, and what is wrong with that.
fn judge<S: Source>(graph: &Graph<S>, asked: &[usize]) -> Resolution {
    let mut result = Resolution::default();
    let reached = reach(graph, asked, &mut result);
    for chosen in &result.chosen {
        let node = &graph.nodes[graph.index[&chosen.key]];
        result.problems.extend(conflicts(graph, node, &reached));
    }
    result.problems.extend(cycles(graph, asked).iter().map(|cycle| cycle_problem(graph, cycle)));
    result
}

/// Adds the skills that are needed and the requirements that are not met. Returns the nodes that were reached.
fn reach<S: Source>(graph: &Graph<S>, asked: &[usize], result: &mut Resolution) -> HashSet<usize> {
    let mut reached: HashSet<usize> = asked.iter().copied().collect();
    let mut queue: VecDeque<(usize, i32, Option<usize>)> = asked.iter().map(|node| (*node, 0, None)).collect();
    while let Some((from, depth, by)) = queue.pop_front() {
        let node = &graph.nodes[from];
        if let Some(candidate) = &node.chosen {
            let required_by = by.map(|by| graph.nodes[by].key.clone());
            result.chosen.push(Chosen { key: node.key.clone(), candidate: candidate.clone(), depth, required_by });
        }
        for (to, relation) in graph.required(from) {
            result.problems.extend(unmet(node, relation, &graph.nodes[to]));
            if reached.insert(to) {
                queue.push_back((to, depth + 1, Some(from)));
            }
        }
    }
    reached
}

/// Why `other` does not meet what `node` requires of it.
fn unmet(node: &Node, relation: &Relation, other: &Node) -> Option<Problem> {
    let (problem, detail) = match &other.chosen {
        None if !other.exists => ("missing", "The skill does not exist.".to_owned()),
        None if other.candidates.is_empty() => ("version", "It has no approved version that may be used.".to_owned()),
        Some(candidate) if relation.admits(candidate) => return None,
        Some(candidate) if other.candidates.iter().any(|candidate| relation.admits(candidate)) => {
            let why = if other.fixed { "was asked for" } else { "is what others require" };
            ("version", format!("{} {why}.", candidate.display_version()))
        }
        _ => ("version", format!("Available: {}.", listed(&other.candidates))),
    };
    Some(relation.problem(problem, node, other, detail))
}

/// The nodes reached that a node conflicts with.
fn conflicts<S: Source>(graph: &Graph<S>, node: &Node, reached: &HashSet<usize>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for relation in node.relations.iter().filter(|relation| relation.kind == Kind::Conflicts) {
        let Some(other) = graph.index.get(&key(relation)).filter(|other| reached.contains(other)) else {
            continue;
        };
        let other = &graph.nodes[*other];
        match &other.chosen {
            Some(candidate) if relation.admits(candidate) && other.key != node.key => {
                let detail = format!("{} is needed too.", candidate.display_version());
                problems.push(relation.problem("conflict", node, other, detail));
            }
            _ => {}
        }
    }
    problems
}

fn cycle_problem<S>(graph: &Graph<S>, cycle: &[usize]) -> Problem {
    let keys: Vec<&Key> = cycle.iter().map(|node| &graph.nodes[*node].key).collect();
    let mut path: Vec<String> = keys.iter().map(|key| format_key(key)).collect();
    if path.len() > MAX_PATH {
        let left_out = path.len() - MAX_PATH;
        path.splice(MAX_PATH / 2..MAX_PATH / 2 + left_out, [format!("({left_out} more)")]);
    }
    path.push(format_key(keys[0]));
    Problem {
        problem: "cycle",
        by: keys[keys.len() - 1].clone(),
        skill: keys[0].clone(),
        range: None,
        detail: format!("{}.", path.join(" -> ")),
    }
}

/// Every cycle shares a skill with one of these. One walk in depth: each node and each edge is looked at once.
fn cycles<S: Source>(graph: &Graph<S>, asked: &[usize]) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = Vec::new();
    let mut reported = HashSet::new();
    let mut done = HashSet::new();
    let mut place: HashMap<usize, usize> = HashMap::new();
    for root in asked {
        if done.contains(root) {
            continue;
        }
        let edges = |node: usize| graph.required(node).map(|(to, _)| to).collect::<Vec<_>>().into_iter();
        let mut path = vec![(*root, edges(*root))];
        place.insert(*root, 0);
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            match next.next() {
                None => {
                    path.pop();
                    place.remove(&node);
                    done.insert(node);
                }
                Some(to) => {
                    if let Some(start) = place.get(&to) {
                        // One report for the end of a cycle is enough; a dense knot would have a great many.
                        if reported.insert(to) {
                            found.push(path[*start..].iter().map(|(node, _)| *node).collect());
                        }
                    } else if !done.contains(&to) {
                        place.insert(to, path.len());
                        path.push((to, edges(to)));
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
