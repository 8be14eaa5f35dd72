use super::*;
use crate::skills::requirement::semantic;
use proptest::prelude::*;
use serde_json::json;

/// Skills by name, each with its versions and what they say.
#[derive(Default)]
struct Store {
    skills: HashMap<String, Vec<(Candidate, Vec<Relation>)>>,
}

impl Store {
    fn add(&mut self, name: &str, semver: &str, manifest: Value) -> &mut Self {
        let n = self.skills.values().map(Vec::len).sum::<usize>() as i64 + 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let candidate =
            Candidate { id, version: format!("{n:012x}"), semver: semantic(semver), revision: n, served: false };
        self.skills.entry(name.into()).or_default().push((candidate, read("ns", Some(&manifest)).unwrap()));
        self
    }

    fn root(&self, name: &str) -> (Key, Candidate) {
        (("ns".into(), name.into()), self.skills[name].last().unwrap().0.clone())
    }

    fn ask(&mut self, names: &[&str]) -> (Vec<String>, Vec<String>) {
        let roots = names.iter().map(|name| self.root(name)).collect();
        let result = resolve(roots, self).unwrap();
        let chosen = result
            .chosen
            .iter()
            .map(|c| {
                format!("{}@{}", c.key.1, c.candidate.semver.as_ref().map(ToString::to_string).unwrap_or_default())
            })
            .collect();
        (
            chosen,
            result.problems.iter().map(|p| format!("{} {} {}: {}", p.problem, p.by.1, p.skill.1, p.detail)).collect(),
        )
    }
}

impl Source for Store {
    fn candidates(&mut self, key: &Key) -> Option<Vec<Candidate>> {
        self.skills.get(&key.1).map(|all| all.iter().map(|(candidate, _)| candidate.clone()).collect())
    }
    fn relations(&mut self, version: &[u8; 16]) -> Vec<Relation> {
        self.skills
            .values()
            .flatten()
            .find(|(candidate, _)| candidate.id == *version)
            .map(|(_, relations)| relations.clone())
            .unwrap_or_default()
    }
}

fn requires(entries: &[(&str, &str)]) -> Value {
    json!({"requires": entries.iter().map(|(skill, version)| json!({"skill": skill, "version": version})).collect::<Vec<_>>()})
}

#[test]
fn manifests() {
    let all = read(
        "team",
        Some(&json!({"requires": ["a", {"skill": "other/b", "version": "^1.2"}], "conflicts": [{"skill": "../c"}]})),
    )
    .unwrap();
    let flat: Vec<_> = all
        .iter()
        .map(|r| (r.kind.as_str(), r.namespace.as_str(), r.skill_name.as_str(), r.range.as_ref().map(Range::text)))
        .collect();
    assert_eq!(
        flat,
        [
            ("requires", "team", "a", None),
            ("requires", "other", "b", Some("^1.2")),
            ("conflicts", "team", "../c", None)
        ]
    );
    assert_eq!(read("team", None).unwrap(), []);
    assert_eq!(read("team", Some(&json!({"id": "x", "requires": null}))).unwrap(), []);
    for bad in [
        json!({"a": "^1"}),
        json!("a"),
        json!([1]),
        json!([{"skill": 1}]),
        json!([{"version": "1"}]),
        json!([{"skill": "a", "version": "^"}]),
        json!([{"skill": "a", "version": 1}]),
        json!([{"skill": "a", "versions": "1"}]),
        json!(["a", "team/a"]),
        json!([""]),
        json!(vec!["a"; 101]),
    ] {
        let fault = read("team", Some(&json!({"requires": bad}))).unwrap_err();
        assert_eq!(fault.code, Code::InvalidParameterValue, "{bad}");
    }
}

#[test]
fn one_version_meets_all() {
    let mut store = Store::default();
    store.add("c", "1.4.0", json!({})).add("c", "1.9.0", json!({})).add("c", "2.0.0", json!({}));
    store.add("a", "1.0.0", requires(&[("c", "^1")])).add("b", "1.0.0", requires(&[("c", "<1.5")]));
    store.add("top", "1.0.0", requires(&[("a", "^1"), ("b", "*")]));
    assert_eq!(
        store.ask(&["top"]),
        (vec!["top@1.0.0".into(), "a@1.0.0".into(), "b@1.0.0".into(), "c@1.4.0".into()], vec![])
    );
    store.add("d", "1.0.0", requires(&[("c", "^2"), ("a", "^1")]));
    let (_, problems) = store.ask(&["d"]);
    assert_eq!(problems, ["version a c: 2.0.0 (000000000003) is what others require."]);
}

#[test]
fn what_is_not_needed_any_more_is_left_out() {
    // b makes a fall back to 1.0.0, which needs no x.
    let mut store = Store::default();
    store.add("x", "1.0.0", json!({})).add("a", "1.0.0", json!({})).add("a", "1.1.0", requires(&[("x", "^1")]));
    store.add("b", "1.0.0", requires(&[("a", "=1.0.0")])).add("top", "1.0.0", requires(&[("a", "^1"), ("b", "^1")]));
    assert_eq!(store.ask(&["top"]), (vec!["top@1.0.0".into(), "a@1.0.0".into(), "b@1.0.0".into()], vec![]));
}

#[test]
fn problems() {
    let mut store = Store::default();
    store.skills.insert("draft".into(), vec![]);
    store.add("b", "1.0.0", json!({"conflicts": [{"skill": "c", "version": "<2"}, "absent"]})).add(
        "c",
        "1.0.0",
        json!({}),
    );
    store.add("a", "1.0.0", json!({"requires": ["b", "c", "none", "draft"]}));
    let (chosen, problems) = store.ask(&["a"]);
    assert_eq!(chosen, ["a@1.0.0", "b@1.0.0", "c@1.0.0"]);
    assert_eq!(
        problems,
        [
            "missing a none: The skill does not exist.",
            "version a draft: It has no approved version that may be used.",
            "conflict b c: 1.0.0 (000000000002) is needed too.",
        ]
    );
    store.add("e", "1.0.0", requires(&[("c", "^9")]));
    assert_eq!(store.ask(&["e"]).1, ["version e c: Available: 1.0.0 (000000000002)."]);
    // Two skills asked for together may conflict although neither needs the other.
    assert_eq!(store.ask(&["c", "b"]).1.len(), 1);
    assert!(store.ask(&["b"]).1.is_empty());
    let roots = vec![store.root("b"), (("ns".into(), "b".into()), store.skills["c"][0].0.clone())];
    assert!(resolve(roots, &mut store).is_err());
}

#[test]
fn cycles_are_named_with_their_path() {
    let mut store = Store::default();
    store.add("a", "1.0.0", requires(&[("b", "*")])).add("b", "1.0.0", requires(&[("c", "*")])).add(
        "c",
        "1.0.0",
        requires(&[("a", "*")]),
    );
    store.add("self", "1.0.0", requires(&[("self", "*")])).add("top", "1.0.0", requires(&[("b", "*"), ("self", "*")]));
    assert_eq!(store.ask(&["a"]).1, ["cycle c a: ns/a -> ns/b -> ns/c -> ns/a."]);
    assert_eq!(
        store.ask(&["top"]).1,
        ["cycle a b: ns/b -> ns/c -> ns/a -> ns/b.", "cycle self self: ns/self -> ns/self."]
    );
}

#[test]
fn a_long_cycle_and_a_dense_knot_stay_small() {
    let mut store = Store::default();
    for i in 0..1000 {
        store.add(&format!("s{i}"), "1.0.0", requires(&[(&format!("s{}", (i + 1) % 1000), "*")]));
    }
    let (chosen, problems) = store.ask(&["s0"]);
    assert_eq!((chosen.len(), problems.len()), (1000, 1));
    assert!(problems[0].contains("(980 more)") && problems[0].len() < 400);
    let mut store = Store::default();
    let all: Vec<String> = (0..100).map(|i| format!("s{i}")).collect();
    for name in &all {
        let manifest = requires(&all.iter().map(|other| (other.as_str(), "*")).collect::<Vec<_>>());
        store.add(name, "1.0.0", manifest);
    }
    assert_eq!(store.ask(&["s0"]).1.len(), 100);
    let mut store = Store::default();
    for i in 0..1100 {
        store.add(&format!("s{i}"), "1.0.0", requires(&[(&format!("s{}", i + 1), "*")]));
    }
    let root = vec![store.root("s0")];
    assert_eq!(resolve(root, &mut store).unwrap_err().code, Code::ProgramLimitExceeded);
}

proptest! {
    /// Checked by brute force: a cycle is reported exactly where one can be reached.
    #[test]
    fn a_cycle_is_found_where_there_is_one(edges in proptest::collection::hash_set((0usize..7, 0usize..7), 0..16)) {
        let mut store = Store::default();
        for node in 0..7 {
            let targets: Vec<String> = edges.iter().filter(|(from, _)| *from == node).map(|(_, to)| format!("s{to}")).collect();
            store.add(&format!("s{node}"), "1.0.0", json!({"requires": targets}));
        }
        let mut reach = [[false; 7]; 7];
        for (from, to) in &edges { reach[*from][*to] = true; }
        for k in 0..7 { for i in 0..7 { for j in 0..7 { reach[i][j] |= reach[i][k] && reach[k][j]; } } }
        let cyclic = (0..7).any(|node| reach[node][node] && (node == 0 || reach[0][node]));
        let needed = 1 + (1..7).filter(|node| reach[0][*node]).count();
        let (chosen, problems) = store.ask(&["s0"]);
        prop_assert_eq!(problems.iter().any(|problem| problem.starts_with("cycle")), cyclic);
        prop_assert_eq!(chosen.len(), needed);
    }
}
