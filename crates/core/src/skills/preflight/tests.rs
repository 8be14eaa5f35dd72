use super::*;
use crate::input::MAX_JSON_BYTES;
use proptest::prelude::*;

fn codes(yaml: &str) -> Vec<(&'static str, String)> {
    of_yaml(yaml)
        .unwrap()
        .into_iter()
        .map(|issue| (issue.code, issue.details["path"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn scalars_have_the_types_of_yaml_1_1() {
    for (text, config) in [
        ("no", Config::Bool(false)),
        ("On", Config::Bool(true)),
        ("0o17", Config::Text("0o17".into())),
        ("017", Config::Int(15)),
        ("0x1F", Config::Int(31)),
        ("-1_000", Config::Int(-1000)),
        ("12:34", Config::Int(754)),
        ("1.5", Config::Float),
        ("1e3", Config::Text("1e3".into())),
        (".inf", Config::Float),
        ("~", Config::Null),
        ("2026-01-02", Config::Date("date")),
        ("2026-01-02 03:04:05Z", Config::Date("datetime")),
        ("'no'", Config::Text("no".into())),
        ("!!str 12", Config::Text("12".into())),
        ("99999999999999999999", Config::Int(i64::MAX)),
    ] {
        assert_eq!(parse_yaml(&format!("k: {text}")).unwrap().unwrap().get("k"), Some(&config), "{text}");
    }
    let merged = parse_yaml("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n").unwrap().unwrap();
    let b = merged.get("b").unwrap();
    assert_eq!((b.get("x"), b.get("y")), (Some(&Config::Int(1)), Some(&Config::Int(3))));
}

#[test]
fn the_traps_of_yaml_are_found() {
    let config = "
config_version: 1
skills:
  spaces:
    - {id: s1, namespace: 12:34, sources: [pg]}
  sources:
    - id: pg
      type: pgsql
      options: {dsn_env: NO, schema: skill_system, table: 1}
  scan: {refresh_policy: never, ttl_sec: '5'}
  injektion: {}
";
    assert_eq!(
        codes(config),
        [
            ("CLI_CONFIG_INVALID", "skills.injektion".into()),
            ("CLI_CONFIG_INVALID", "skills.scan.refresh_policy".into()),
            ("CLI_CONFIG_INVALID", "skills.scan.ttl_sec".into()),
            ("CLI_CONFIG_INVALID", "skills.spaces[0].namespace".into()),
            ("SKILL_CONFIG_INVALID_OPTION", "skills.sources[0].options.dsn_env".into()),
            ("SKILL_CONFIG_INVALID_OPTION", "skills.sources[0].options.table".into()),
        ]
    );
    assert_eq!(codes("spaces: {}"), [("CLI_CONFIG_INVALID", "skills.spaces".into())]);
    assert_eq!(
        codes("sources: [{}]"),
        [
            ("CLI_CONFIG_INVALID", "skills.sources[0].id".into()),
            ("CLI_CONFIG_INVALID", "skills.sources[0].type".into())
        ]
    );
    assert_eq!(
        codes("versioning: {colour: red}"),
        [("SKILL_CONFIG_VERSIONING_UNKNOWN_KEYS", "skills.versioning".into())]
    );
    assert!(codes("").is_empty() && codes("skills: {}").is_empty() && codes("config_version: 1\nllm: {}").is_empty());
    for unreadable in ["a: [", "- 1", "a: *b", "a: !x 1", "? [a]\n: 1", "--- {}\n--- {}", "<<: 1"] {
        assert_eq!(codes(unreadable), [("CLI_CONFIG_LOAD_FAILED", String::new())], "{unreadable}");
    }
}

#[test]
fn a_bomb_of_aliases_is_not_unfolded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..20 {
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
    }
    assert_eq!(codes(&bomb)[0].0, "CLI_CONFIG_LOAD_FAILED");
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a, ".repeat(1000));
    assert_eq!(codes(&long)[0].0, "CLI_CONFIG_LOAD_FAILED");
    assert_eq!(codes(&"[".repeat(100_000))[0].0, "CLI_CONFIG_LOAD_FAILED");
    assert!(of_yaml(&" ".repeat(MAX_JSON_BYTES + 1)).is_err());
}

proptest! {
    #[test]
    fn any_text_is_judged(text in "[a-z0-9:\\-\\[\\]{}&*!,'\"\n ~<]{0,80}") {
        of_yaml(&text).unwrap();
    }
}
