use super::*;
use proptest::prelude::*;
use serde_json::json;

/// White space and line ends of JavaScript, for a class.
const SPACE: &str = r"\t\n\x0B\x0C\r \u{A0}\u{1680}\u{2000}-\u{200A}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}\u{FEFF}";
const LINE_END: &str = r"\n\r\u{2028}\u{2029}";

fn says(body: &str) -> Option<(Status, Option<&str>)> {
    header(body).map(|header| (header.status, header.token))
}

#[test]
fn the_header_is_read_as_a_runtime_reads_it() {
    use Status::{Approved, Disabled, Draft};
    for (body, expected) in [
        ("# Skill: a\n# Status: Draft\n", Some((Draft, None))),
        ("#Status:aPPROVED   v3:x-y  z \n", Some((Approved, Some("v3:x-y  z")))),
        ("# Skill: a\r\n   # Status :Disabled\r\n", Some((Disabled, None))),
        ("a\r# Status: Draft\rb", Some((Draft, None))),
        ("a\u{2028}# Status: Approved", Some((Approved, None))),
        ("\u{feff}# Status: Approved", Some((Approved, None))),
        ("#\n Status\n:\n\n approved\n", Some((Approved, None))),
        ("# Status:\nApproved", Some((Approved, None))),
        // The first one counts, even if it says nothing.
        ("# Status: Live\n# Status: Approved\n", None),
        ("# Status:\n# Status: Approved\n", None),
        ("# STATUS: Approved\n", None),
        ("x # Status: Approved\n", None),
        ("# Status\u{85}: Approved\n", None),
        ("# Status:  ", None),
        ("", None),
    ] {
        assert_eq!(says(body), expected, "{body:?}");
    }
}

#[test]
fn a_status_is_written_into_one_line() {
    let draft = |body| with_status(body, Status::Draft);
    for (body, expected) in [
        ("# Skill: a\n# Status: Approved v3:x\n\nt:\n", "# Skill: a\n# Status: Draft\n\nt:\n"),
        ("# Skill: a\r\n#Status:Live  \r\nt:", "# Skill: a\r\n# Status: Draft\r\nt:"),
        ("# Skill: a\n# Status:\n# Description: d\n", "# Skill: a\n# Status: Draft\n# Description: d\n"),
        ("# Skill: a\r\nt:", "# Skill: a\r\n# Status: Draft\r\nt:"),
        ("# Skill: a", "# Skill: a\n# Status: Draft"),
        ("t:\n", "# Status: Draft\nt:\n"),
        ("", "# Status: Draft\n"),
        // The indented one would still be read first.
        ("  # Status: Approved\n# Status: Disabled\n", "# Status: Draft\n  # Status: Approved\n# Status: Disabled\n"),
        ("\u{feff}# Status: Approved\n", "# Status: Draft\n\u{feff}# Status: Approved\n"),
    ] {
        assert_eq!(draft(body), expected, "{body:?}");
    }
}

proptest! {
    #[test]
    fn a_header_is_what_the_runtimes_pattern_finds(body in "([ #:\n\r\u{2028}\u{feff}\u{85}x]|Status|Skill|draft|Approved v3:a|# Status: ){0,40}") {
        let pattern = format!("(?:\\A|[{LINE_END}])[{SPACE}]*#[{SPACE}]*Status[{SPACE}]*:[{SPACE}]*([^{LINE_END}]+?)[{SPACE}]*(?:\\z|[{LINE_END}])");
        let found = Regex::new(&pattern).unwrap().captures(&body).and_then(|found| found.get(1)).map(|value| value.as_str().trim_matches(is_space));
        let words: Vec<&str> = found.unwrap_or_default().split(is_space).filter(|word| !word.is_empty()).collect();
        let status = words.first().and_then(|word| Status::parse(&word.to_ascii_lowercase()));
        prop_assert_eq!(says(&body).map(|(status, _)| status), status);
        prop_assert_eq!(says(&body).is_some_and(|(_, token)| token.is_some()), status.is_some() && words.len() > 1);
    }

    #[test]
    fn what_is_written_is_read_and_the_signed_text_stays(body in "([ #:\n\r\u{feff}x]|Status|Skill|Tags|Approved|# Status: ){0,40}") {
        for status in [Status::Draft, Status::Approved, Status::Disabled] {
            let written = with_status(&body, status);
            prop_assert_eq!(says(&written), Some((status, None)));
            prop_assert_eq!(canonical(&written), canonical(&body));
            prop_assert_eq!(with_status(&written, status), written);
        }
    }

    #[test]
    fn no_body_breaks_the_reader(body in "\\PC*|.*") {
        for status in [Status::Draft, Status::Approved] {
            let written = with_status(&body, status);
            prop_assert_eq!(says(&written), Some((status, None)));
        }
        canonical(&body);
    }
}

#[test]
fn the_signed_text_has_neither_status_nor_tags() {
    assert_eq!(
        canonical("# Skill: a\r\n # STATUS : x\r#tags:y\n\n# Statuses: z\nt: ſ\n# ſtatus: s"),
        "# Skill: a\n\n# Statuses: z\nt: ſ\n# ſtatus: s"
    );
    assert_eq!(canonical(""), "");
}

#[test]
fn tokens_are_refused_for_one_reason_each() {
    let token = |token: &str| signature(&format!("# Status: Approved {token}\n"));
    assert_eq!(signature("# Status: Draft v3:AAAA"), Err(Refusal::NotApproved));
    for (text, reason) in [
        ("", Refusal::NoSignature),
        ("x", Refusal::Shape),
        ("v3:", Refusal::Shape),
        ("v3:a b", Refusal::Shape),
        ("v3:a=", Refusal::Shape),
        ("v:aa", Refusal::Shape),
        ("v²:aa", Refusal::Shape),
        ("v0:aa", Refusal::Reserved),
        ("v1:aa", Refusal::Version),
        ("v33:aa", Refusal::Version),
        ("v3:AAAA", Refusal::Signature),
    ] {
        assert_eq!(token(text), Err(reason), "{text}");
    }
    assert!(token(&format!("v3:{}", "A".repeat(86))).is_ok());
}

#[test]
fn an_approval_needs_who_may_and_in_secured_mode_a_signature() {
    use Status::{Approved, Disabled, Draft};
    let bare = "# Skill: a\n# Status: Approved\n";
    let body = |decision: Decision| decision.body.into_owned();
    let stored = |said, signed, secured, may| {
        let d = decide(bare, said, signed, secured, may);
        (d.status, body(d) == bare)
    };
    // said, signed, secured, may approve -> status, verbatim
    assert_eq!(stored(None, false, false, true), (Approved, true));
    assert_eq!(stored(None, false, true, true), (Draft, false));
    assert_eq!(stored(None, true, true, true), (Approved, true));
    assert_eq!(stored(Some(Draft), false, true, true), (Draft, true));
    for secured in [false, true] {
        for signed in [false, true] {
            assert_eq!(stored(None, signed, secured, false), (Draft, false));
            // The row alone would not keep a runtime from believing the body.
            assert_eq!(stored(Some(Disabled), signed, secured, false), (Disabled, false));
            assert_eq!(
                decide("t:\n", Some(Approved), signed, secured, false),
                Decision { body: "# Status: Draft\nt:\n".into(), status: Draft }
            );
        }
    }
    assert_eq!(decide("t:\n", None, false, true, false), Decision { body: "t:\n".into(), status: Draft });
}

#[test]
fn metadata() {
    let read = |value: Value| Metadata::parse(Some(&value));
    let given = read(json!({"author": "alice", "metadata_bag": {"tags": ["x", " y ", "x", 1], "k": null}, "status": "Approved", "vars": 1, "description": null})).unwrap();
    assert_eq!((given.author.as_deref(), given.status), (Some("alice"), Some(Status::Approved)));
    assert_eq!(Value::Object(given.bag.clone()), json!({"tags": ["x", " y ", "x", 1], "k": null, "author": "alice"}));
    let body = "# Description:\n#Description :  d e \n# Tags: ops, y,,x\n";
    assert_eq!(given.description(body), "d e");
    assert_eq!(given.tags(body), ["x", "y", "ops"]);
    assert_eq!(read(json!({"metadata_bag": {"tags": "one"}})).unwrap().tags(""), ["one"]);
    assert_eq!(Metadata::parse(None).unwrap(), Metadata::default());
    for bad in [
        json!([]),
        json!({"author": 1}),
        json!({"author": ""}),
        json!({"status": "approved"}),
        json!({"metadata_bag": []}),
        json!({"description": {}}),
    ] {
        assert!(read(bad.clone()).is_err_and(|fault| fault.code == Code::InvalidParameterValue), "{bad}");
    }
}

#[test]
fn filters() {
    let read = |value: Value| Filter::parse(Some(&value));
    let filter = read(json!({"status": ["Draft", "draft"], "tag": "x", "since": 1.5, "limit": 2.0, "name_pattern": "^a", "unknown": {}})).unwrap();
    assert_eq!(
        (filter.statuses.unwrap(), filter.tags, filter.since, filter.limit, filter.offset),
        (vec!["draft".to_owned()], vec!["x".to_owned()], Some(1.5), Some(2), 0)
    );
    assert!(filter.pattern.unwrap().is_match("ab"));
    for bad in [
        json!(1),
        json!({"status": 1}),
        json!({"tag": [1]}),
        json!({"limit": -1}),
        json!({"limit": 0.5}),
        json!({"offset": "1"}),
        json!({"since": "x"}),
        json!({"author": []}),
        json!({"name_pattern": "(?=a)"}),
        json!({"name_pattern": "("}),
    ] {
        assert!(read(bad.clone()).is_err_and(|fault| fault.code == Code::InvalidParameterValue), "{bad}");
    }
    for large in ["x".repeat(1001), "(a{1000}){1000}".into()] {
        assert!(read(json!({"name_pattern": large})).is_err_and(|fault| fault.code == Code::ProgramLimitExceeded));
    }
}

#[test]
fn the_token() {
    assert_eq!(Token::default().finish(), "e3b0c44298fc1c14");
    let mut token = Token::default();
    token.add("a", Status::Draft, "000000000001");
    token.add("b", Status::Approved, "000000000002");
    // printf 'a:Draft:000000000001\nb:Approved:000000000002' | sha256sum
    assert_eq!(token.finish(), "8b294e84945fb06b");
}
