use super::*;
use proptest::prelude::*;

fn profile(name: &str, allow: &[&str], ask: &[&str], deny: &[&str]) -> Profile {
    let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
    Profile {
        name: name.into(),
        version: 1,
        allowed_effects: list(allow),
        ask_effects: list(ask),
        denied_effects: list(deny),
        metadata: "{}".into(),
        ..Profile::default()
    }
}
fn check(policy: &Policy, effects: &[&str]) -> Decision {
    policy.check(effects.iter().copied())
}

#[test]
fn precedence() {
    let p = Policy::compile("p", &[profile("p", &["db.*", "fs.read"], &["db.write"], &["db.drop"])]).unwrap();
    let d = check(&p, &["db.drop", "db.read", "net.fetch", "db.write", "db.drop"]);
    assert_eq!(d.blocked, ["db.drop", "net.fetch", "db.write"]);
    assert_eq!(d.ask, ["db.write"]);
    assert_eq!((d.allowed, d.verdict), (false, Verdict::Deny));
    assert_eq!(check(&p, &["db.write"]).verdict, Verdict::Ask);
    assert!(check(&p, &[]).allowed);
    assert!(!check(&p, &["DB.READ"]).allowed);
}

#[test]
fn inheritance_adds_and_refuses_cycles() {
    let parent = profile("parent", &["db.read"], &[], &["net.fetch"]);
    let mut child = profile("child", &["**"], &[], &[]);
    child.inherits = vec!["parent".into()];
    let p = Policy::compile("child", &[child.clone(), parent.clone()]).unwrap();
    assert!(!check(&p, &["net.fetch"]).allowed);
    assert_eq!(p.explain(["net.fetch"].into_iter())[0].source.as_deref(), Some("parent"));
    let before = p.hash.clone();
    let mut stricter = parent.clone();
    stricter.denied_effects.push("git.write".into());
    assert_ne!(before, Policy::compile("child", &[child.clone(), stricter]).unwrap().hash);
    let mut looped = parent;
    looped.inherits = vec!["child".into()];
    assert!(matches!(Policy::compile("child", &[child.clone(), looped]), Err(PolicyError::Cycle { .. })));
    assert!(matches!(Policy::compile("child", &[child]), Err(PolicyError::UnknownParent { .. })));
}

#[test]
fn commands() {
    let mut p = profile("p", &["proc.exec"], &[], &["proc.exec:sudo"]);
    p.allowed_exec =
        ["git", "npm test", "cargo build **", "python3 *", "/usr/bin/make", "sudo"].map(String::from).to_vec();
    let p = Policy::compile("p", &[p]).unwrap();
    for (argv, allowed) in [
        (&["git", "status"][..], true),
        (&["/tmp/evil/git", "status"], false),
        (&["npm", "test"], true),
        (&["npm", "test", "--force"], false),
        (&["npm"], false),
        (&["cargo", "build"], true),
        (&["cargo", "build", "--release"], true),
        (&["python3", "x.py"], true),
        (&["python3"], false),
        (&["/usr/bin/make"], true),
        (&["/usr/bin/../bin/make"], true),
        (&["/usr/bin/../../tmp/make"], false),
        (&["make"], false),
        (&["sudo"], false),
        (&[""], false),
        (&[], false),
    ] {
        assert_eq!(p.check_exec(argv).allowed, allowed, "{argv:?}");
    }
}

#[test]
fn write_roots() {
    let mut p = profile("p", &["fs.write"], &[], &["fs.write:/srv/app/secret/**"]);
    p.allowed_write_roots = vec!["/srv/app".into(), "/tmp/**".into()];
    let p = Policy::compile("p", &[p]).unwrap();
    for (path, allowed) in [
        ("/srv/app/x", true),
        ("/srv/app", true),
        ("/tmp/a/b", true),
        ("/srv/app/../etc", false),
        ("/srv/application", false),
        ("/srv/app/secret/k", false),
        ("srv/app/x", false),
        ("/srv/app/*", false),
        ("", false),
        ("/srv/app/\u{0}", false),
    ] {
        assert_eq!(p.check_write(path).allowed, allowed, "{path}");
    }
}

#[test]
fn all_questions_about_a_program_or_a_path_agree() {
    let lists: [(&[&str], &[&str]); 4] =
        [(&[], &[]), (&["git", "/usr/bin/*", "npm test"], &[]), (&[], &["/srv", "/tmp/x"]), (&["sh"], &["/"])];
    let columns: [(&[&str], &[&str], &[&str]); 5] = [
        (&["fs.write", "proc.exec"], &[], &[]),
        (&["**"], &["proc.exec:git"], &["fs.write:/srv/secret"]),
        (&["fs.write:/srv/**", "proc.exec:git"], &[], &[]),
        (&[], &["fs.*", "proc.*"], &["proc.exec:npm"]),
        (&[], &[], &[]),
    ];
    for (exec, roots) in lists {
        for (allow, ask, deny) in columns {
            for unlisted in [Unlisted::Deny, Unlisted::Ask] {
                let owned = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
                let profile = Profile {
                    allowed_exec: owned(exec),
                    allowed_write_roots: owned(roots),
                    unlisted,
                    ..profile("p", allow, ask, deny)
                };
                let p = Policy::compile("p", &[profile]).unwrap();
                for path in ["/srv/app/x", "/srv/secret/x", "/srv/../etc/passwd", "/tmp/x", "/tmp/y", "x", "C:/srv/x"] {
                    let effect = format!("fs.write:{path}");
                    assert_eq!(p.check([effect.as_str()].into_iter()), p.check_write(path), "{path} {p:?}");
                }
                for (program, arguments) in
                    [("git", &["status"][..]), ("npm", &["test"]), ("/usr/bin/make", &[]), ("sh", &["x"]), ("rm", &[])]
                {
                    let effect = format!("proc.exec:{program}");
                    let command: Vec<&str> = [&[program], arguments].concat();
                    assert_eq!(p.check([effect.as_str()].into_iter()), p.check_exec(&command), "{command:?} {p:?}");
                }
            }
        }
    }
    // A path with arguments is a command.
    let p = Policy::compile("p", &[profile("p", &["proc.exec"], &["proc.exec:curl"], &["proc.exec:rm"])]).unwrap();
    for (effect, verdict) in [
        ("proc.exec:/usr/bin/env rm", Verdict::Deny),
        ("proc.exec:/bin/sh -c rm", Verdict::Deny),
        ("proc.exec:/bin/busybox rm -rf x", Verdict::Deny),
        ("proc.exec:/bin/sh -c curl x", Verdict::Ask),
        ("proc.exec:/bin/echo rm", Verdict::Allow),
        ("proc.exec:/bin/rm x", Verdict::Deny),
        ("proc.exec:C:/Program Files/make", Verdict::Allow),
    ] {
        assert_eq!(p.judge(effect).0, verdict, "{effect}");
    }
    // Other arguments are looked at only by check_exec().
    let listed = Profile { allowed_exec: vec!["npm test".into()], ..profile("p", &["proc.exec"], &[], &[]) };
    let p = Policy::compile("p", &[listed]).unwrap();
    assert!(p.check(["proc.exec:npm"].into_iter()).allowed && !p.check_exec(&["npm", "install"]).allowed);
    assert!(!p.check(["proc.exec:rm"].into_iter()).allowed && p.check(["proc.exec"].into_iter()).allowed);
}

#[test]
fn lint_finds_what_does_nothing() {
    let mut p = profile(
        "p",
        &["db.read", "fs.*:/etc/x", "fs.wirte", "mail.send", "db.**"],
        &["git.write"],
        &["fs.*:/etc/**", "git.*"],
    );
    p.allowed_exec = vec!["ls".into()];
    p.allowed_write_roots = vec!["/srv".into()];
    let p = Policy::compile("p", &[p]).unwrap();
    let codes: Vec<_> = p.lint().into_iter().map(|f| (f.code, f.rule)).collect();
    for expected in [
        ("shadowed_by_deny", "git.write"),
        ("shadowed_by_deny", "fs.*:/etc/x"),
        ("unknown_effect", "fs.wirte"),
        ("unknown_root", "mail.send"),
        ("redundant", "db.read"),
        ("inert_exec", "ls"),
        ("inert_write_root", "/srv"),
    ] {
        assert!(codes.contains(&(expected.0, expected.1.to_owned())), "{expected:?} in {codes:?}");
    }
    assert_eq!(codes.len(), 7, "{codes:?}");
}

fn all_codes(policy: &Profile) -> Vec<(&'static str, String)> {
    Policy::compile("p", std::slice::from_ref(policy)).unwrap().lint().into_iter().map(|f| (f.code, f.rule)).collect()
}

/// But for the notes on rules that no list restricts, which have a test to themselves.
fn codes(policy: &Profile) -> Vec<(&'static str, String)> {
    all_codes(policy).into_iter().filter(|(code, _)| *code != "unlimited").collect()
}

#[test]
fn lint_notes_what_no_list_restricts() {
    let notes = |allow: &[&str], deny: &[&str], exec: &[&str], roots: &[&str]| {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        let lists =
            Profile { allowed_exec: list(exec), allowed_write_roots: list(roots), ..profile("p", allow, &[], deny) };
        all_codes(&lists).into_iter().filter(|(code, _)| *code == "unlimited").map(|(_, rule)| rule).collect::<Vec<_>>()
    };
    for (rule, count) in [
        ("fs.write", 1),
        ("fs.write:/**", 1),
        ("fs.*", 1),
        ("proc.exec", 1),
        ("proc.exec:/**", 1),
        ("proc.**", 1),
        ("**", 2),
        ("fs.read", 0),
        ("fs.write:/srv/**", 0),
        ("fs.write:C:/work/**", 0),
        ("proc.exec:git", 0),
        ("proc.exec:/usr/bin/*", 0),
        ("net.fetch", 0),
    ] {
        assert_eq!(notes(&[rule], &[], &[], &[]), vec![rule; count], "{rule}");
        assert_eq!(notes(&[rule], &[], &["git"], &["/srv"]), [""; 0], "{rule}");
    }
    assert_eq!(notes(&["fs.*"], &[], &["git"], &[]), ["fs.*"]);
    assert_eq!(notes(&["fs.write"], &["fs.write"], &[], &[]), [""; 0]);
}

/// A short name of Windows may stand for any other name.
#[test]
fn short_names_are_read_wide_by_what_denies() {
    let deny = ["fs.read:C:/Windows/**", "fs.read:/srv/data/secret", "proc.exec:powershell"];
    let p = Policy::compile("p", &[profile("p", &["fs.read", "proc.exec"], &[], &deny)]).unwrap();
    for (effect, verdict) in [
        ("fs.read:C:/WINDOW~1/x", Verdict::Deny),
        ("fs.read:c:/window~1", Verdict::Deny),
        ("fs.read:C:/WI1A2B~1/System32/x", Verdict::Deny),
        ("fs.read:C:/WINDOW~1.OLD/x", Verdict::Deny),
        ("fs.read:C:/WINDOW~1./x", Verdict::Deny),
        ("fs.read:C:/W~123456/x", Verdict::Deny),
        ("fs.read:C:/ÜBER~1/x", Verdict::Deny),
        ("fs.read:C:/WINDOW%7e1/x", Verdict::Deny),
        ("fs.read:C:/WINDOW~1:a/x", Verdict::Deny),
        ("fs.read:/WINDOW~1/x", Verdict::Deny),
        ("fs.read://server/data/SECRET~1/x", Verdict::Allow),
        ("fs.read:D:/srv/DATA~1/SECRET~1/x", Verdict::Deny),
        ("fs.read:/srv/data/SECRET~1", Verdict::Deny),
        // The place of the name does not fit, or it is none.
        ("fs.read:D:/WINDOW~1/x", Verdict::Allow),
        ("fs.read:C:/work/WINDOW~1/x", Verdict::Allow),
        ("fs.read:C:/backup~/x", Verdict::Allow),
        ("fs.read:C:/~1x/x", Verdict::Allow),
        ("fs.read:C:/longname~1/x", Verdict::Allow),
        ("fs.read:C:/a~1.html/x", Verdict::Allow),
        ("fs.read:/srv/data/report.~1~", Verdict::Allow),
        ("proc.exec:C:/Windows/System32/POWERS~1.EXE", Verdict::Deny),
        ("proc.exec:POWERS~1.EXE", Verdict::Deny),
        ("proc.exec:C:/tools/git.exe", Verdict::Allow),
    ] {
        assert_eq!(p.judge(effect).0, verdict, "{effect}");
    }
    let p = Policy::compile("p", &[profile("p", &["fs.read:C:/Program Files/**", "fs.read:C:/work/**"], &[], &[])])
        .unwrap();
    assert_eq!(p.judge("fs.read:C:/PROGRA~1/x").0, Verdict::Deny);
    assert_eq!(p.judge("fs.read:C:/work/REPORT~1.TXT").0, Verdict::Allow);
}

#[test]
fn a_command_has_bounds() {
    let p = Policy::compile("p", &[profile("p", &["proc.exec"], &[], &["proc.exec:rm"])]).unwrap();
    let long = "x".repeat(MAX_COMMAND_BYTES);
    for argv in [&["ls", &long][..], &[&long[..], "x"], &["sh", "-c", &long]] {
        let decision = p.check_exec(argv);
        assert_eq!((decision.verdict, decision.blocked[0].len() < 100), (Verdict::Deny, true));
        assert!(decision.reason.contains("longer than 2097152 bytes"));
    }
    assert!(p.check_exec(&["ls", &long[..long.len() - 2]]).allowed);
    assert!(!p.check_exec(&["sh", "-c", &(" ".repeat(1 << 20) + "rm")]).allowed);
}

#[test]
fn lint_names_what_covers_less_than_it_reads() {
    let found = |allow: &[&str], deny: &[&str]| codes(&profile("p", allow, &[], deny));
    let one = |code, rule: &str| vec![(code, rule.to_owned())];
    assert_eq!(found(&["net.fetch"], &["net.fetch:*.bad.example"]), one("partial", "net.fetch:*.bad.example"));
    assert_eq!(found(&["net.fetch"], &["net.fetch:**.bad.example"]), []);
    assert_eq!(found(&["net.fetch:good.example"], &["net.fetch:*.bad.example"]), []);
    assert_eq!(found(&["proc.exec"], &["proc.exec:/bin/rm"]), one("partial", "proc.exec:/bin/rm"));
    assert_eq!(found(&["proc.exec"], &["proc.exec:/bin/rm", "proc.exec:rm"]), []);
    assert_eq!(found(&["fs.write"], &["fs.write:/**"]), one("shadowed_by_deny", "fs.write"));
    assert_eq!(found(&["net.fetch"], &["net.fetch:*"]), one("shadowed_by_deny", "net.fetch"));
    assert_eq!(found(&["fs.read:/ETC/x"], &["fs.read:/etc"]), one("shadowed_by_deny", "fs.read:/ETC/x"));
    for rule in [
        "fs.read:/srv/{a,b}/**",
        "fs.read:/srv/f?.txt",
        "fs.read:/srv/[ab]/**",
        "fs.read:/$HOME/**",
        "fs.read:/~/x",
        "fs.read:/srv/a%20b/**",
        "git.read:v[12]",
        "fs.read:/srv/+(a)",
        "fs.read:/srv/@(a|b)",
        "fs.read:/srv/a|b",
        "fs.read:/srv/%TEMP%",
        "fs.read:C:/WINDOW~1/**",
        "db.read:%",
        "net.fetch:10.0.0.1-9",
        "net.fetch:10.0.0-3.*",
        "net.fetch:192.168.x.x",
        "net.fetch:10.0.0.1-9:443",
    ] {
        assert_eq!(found(&["fs.read", "git.read", "db.read", "net.fetch"], &[rule]), one("glob_character", rule));
    }
    for rule in ["net.fetch:*", "net.fetch:*.*", "proc.exec:**", "git.read:*", "fs.read:/srv/"] {
        assert_eq!(found(&[rule], &[]), one("narrow", rule));
    }
    for rule in ["net.fetch:0x7f000001", "net.fetch:0.pool.ntp.org", "net.fetch:10.*.*.*", "net.fetch:3-x.example"] {
        assert_eq!(found(&["net.fetch"], &[rule]), []);
    }
    for rule in ["net.fetch:**", "net.fetch:[fd00::/8]", "db.read:*", "fs.read:/**", "fs.read:/srv/a b/**"] {
        assert_eq!(found(&[rule], &[]), []);
    }
    assert_eq!(found(&["fs.read:/srv/../**"], &[]), one("wide", "fs.read:/srv/../**"));
    assert_eq!(found(&["fs.read:/proc/self/root/**"], &[]), one("never_matches", "fs.read:/proc/self/root/**"));
}

#[test]
fn lint_of_commands_and_roots() {
    let listed = |allow: &[&str], deny: &[&str], exec: &[&str], roots: &[&str]| {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        codes(&Profile { allowed_exec: list(exec), allowed_write_roots: list(roots), ..profile("p", allow, &[], deny) })
    };
    assert_eq!(listed(&["proc.exec"], &["proc.exec:/opt/x/**"], &["/usr/bin/*"], &[]), []);
    assert_eq!(listed(&["proc.exec:/usr/bin/*"], &[], &["/usr/bin/*"], &[]), []);
    assert_eq!(
        listed(&["proc.exec"], &["proc.exec:/usr/bin/**"], &["/usr/bin/*"], &[]),
        [("inert_exec", "/usr/bin/*".into())]
    );
    let launchers = "env sh /bin/bash python3.12 /usr/bin/sudo busybox /lib64/ld-linux-x86-64.so.2 taskset chrt command toybox setarch \
        linux64 prlimit numactl fakeroot firejail proot gosu entr sem tmux screen dbus-run-session xvfb-run nc ncat nc.openbsd socat \
        tar gtar git rsync npx uvx kubectl gdb vim vim.tiny pypy3 less C:/Windows/cmd.exe";
    for launcher in launchers.split_whitespace().chain(["xargs **", "find *", "git log **", "tar -x *"]) {
        assert_eq!(listed(&["proc.exec"], &[], &[launcher], &[]), [("runs_programs", launcher.into())]);
    }
    assert_eq!(listed(&["proc.exec"], &[], &["python3 report.py", "git status", "npm test", "ls"], &[]), []);
    assert_eq!(listed(&["proc.exec"], &[], &["/**"], &[]), [("wide", "/**".into())]);
    assert_eq!(listed(&["proc.exec:tmux"], &[], &[], &[]), [("runs_programs", "proc.exec:tmux".into())]);
    assert_eq!(listed(&["proc.exec:git"], &[], &["git status"], &[]), []);
    for rule in ["**", "*.**", "*.*"] {
        assert_eq!(listed(&[rule], &[], &[], &[]), [("wide", rule.into())]);
    }
    assert_eq!(listed(&["*"], &[], &[], &[]), [("narrow", "*".into())]);
    assert_eq!(listed(&[], &["**"], &[], &[]), []);
    assert_eq!(listed(&["fs.write"], &[], &[], &["/"]), [("wide", "/".into())]);
    assert_eq!(listed(&["fs.write"], &[], &[], &["/srv/app/../.."]), [("wide", "/srv/app/../..".into())]);
    assert_eq!(listed(&["fs.write"], &[], &[], &["C:/"]), [("wide", "C:/".into())]);
    assert_eq!(
        listed(&["fs.write"], &["fs.write:/srv"], &[], &["/srv/app"]),
        [("inert_write_root", "/srv/app".into())]
    );
    for (column, text) in [
        ("root", ""),
        ("root", " "),
        ("root", "."),
        ("root", "/srv/\u{200b}x"),
        ("exec", ""),
        ("exec", "a\u{200b}b"),
        ("exec", "a\u{a0}b"),
        ("inherits", ""),
        ("name", "dev\u{200b}"),
        ("name", " dev"),
    ] {
        let mut bad = profile("p", &[], &[], &[]);
        if column == "root" {
            bad.allowed_write_roots.push(text.into())
        } else if column == "name" {
            bad.name = text.into()
        } else if column == "inherits" {
            bad.inherits.push(text.into())
        } else {
            bad.allowed_exec.push(text.into())
        }
        assert!(bad.validate().is_err(), "{column} {text:?}");
    }
}

/// What decodes percent signs opens another file.
#[test]
fn what_percent_signs_stand_for_must_be_allowed_too() {
    let mut p = profile("p", &["fs.write:/srv/app/**", "git.read:feature/*"], &[], &["fs.write:/srv/app/secret"]);
    p.allowed_write_roots = vec!["/srv/app".into()];
    let p = Policy::compile("p", &[p]).unwrap();
    for (path, verdict) in [
        ("/srv/app/100%.txt", Verdict::Allow),
        ("/srv/app/100%25.txt", Verdict::Allow),
        ("/srv/app/a%20b", Verdict::Allow),
        ("/srv/app/%2e%2e/x", Verdict::Deny),
        ("/srv/app/..%2f..%2fx", Verdict::Deny),
        ("/srv/app/%252e%252e/x", Verdict::Deny),
        ("/srv/app/a/%2e%2e/b", Verdict::Allow),
        ("/srv/app/%73ecret", Verdict::Deny),
    ] {
        assert_eq!(p.judge(&format!("fs.write:{path}")).0, verdict, "{path}");
        assert_eq!(p.check_write(path).verdict, verdict, "{path}");
    }
    assert_eq!(p.judge("git.read:feature/%61").0, Verdict::Allow);
    assert_eq!(p.judge("git.read:feature%2f..%2fx").0, Verdict::Deny);
}

#[test]
fn programs_that_run_programs() {
    let mut p = profile("p", &["proc.exec"], &["proc.exec:curl"], &["proc.exec:rm", "proc.exec:/opt/x/**"]);
    p.allowed_exec = "env sh xargs busybox git tar rsync vim gdb kubectl nc socat taskset /lib64/* npx less"
        .split(' ')
        .map(String::from)
        .collect();
    let p = Policy::compile("p", &[p]).unwrap();
    for (argv, verdict) in [
        (&["env", "rm", "-rf", "/x"][..], Verdict::Deny),
        (&["env", "A=1", "/bin/rm"], Verdict::Deny),
        (&["env", "./rm"], Verdict::Deny),
        (&["sh", "-c", "cd /x && rm -rf ."], Verdict::Deny),
        (&["busybox", "RM"], Verdict::Deny),
        (&["xargs", "/opt/x/tool"], Verdict::Deny),
        (&["sh", "-c", "curl x"], Verdict::Ask),
        (&["env", "ls"], Verdict::Allow),
        (&["sh", "-c", "ls /form"], Verdict::Allow),
        (&["git", "commit", "-m", "rm"], Verdict::Allow),
        (&["git", "-c", "core.pager=rm -rf x", "log"], Verdict::Deny),
        (&["git", "rebase", "--exec=rm x"], Verdict::Deny),
        (&["env", "-Srm x"], Verdict::Deny),
        (&["env", "-S", "rm"], Verdict::Deny),
        (&["/lib64/ld-linux-x86-64.so.2", "/bin/rm"], Verdict::Deny),
        (&["taskset", "1", "rm"], Verdict::Deny),
        (&["tar", "-xf", "rm.tar"], Verdict::Allow),
        (&["tar", "--to-command=rm", "-xf", "a.tar"], Verdict::Deny),
        (&["rsync", "-avze", "rm", "a", "b"], Verdict::Deny),
        (&["rsync", "-a", "rm", "b"], Verdict::Allow),
        (&["vim", "-c", "!rm x"], Verdict::Deny),
        (&["vim", "+!rm", "x"], Verdict::Deny),
        (&["vim", "rm"], Verdict::Allow),
        (&["gdb", "-ex", "shell rm"], Verdict::Deny),
        (&["kubectl", "exec", "pod", "--", "rm"], Verdict::Deny),
        (&["kubectl", "get", "rm"], Verdict::Allow),
        (&["nc", "-lve", "/bin/rm"], Verdict::Deny),
        (&["socat", "-", "EXEC:rm"], Verdict::Deny),
        (&["npx", "rm"], Verdict::Deny),
        (&["less", "rm"], Verdict::Allow),
        // Options may be shortened, bundled without a dash, and have one dash or two.
        (&["tar", "--to-c=rm", "-xf", "a.tar"], Verdict::Deny),
        (&["tar", "--checkpoint-act=exec=rm", "-cf", "a.tar"], Verdict::Deny),
        (&["tar", "cIf", "rm", "a.tar"], Verdict::Deny),
        (&["tar", "xf", "a.tar", "rm"], Verdict::Allow),
        (&["git", "fetch", "--upload-p=rm", "x"], Verdict::Deny),
        (&["git", "grep", "-Orm", "x"], Verdict::Deny),
        (&["git", "clone", "ext::rm x"], Verdict::Deny),
        (&["git", "config", "alias.x", "!rm"], Verdict::Deny),
        (&["rsync", "--rs=rm", "a", "b"], Verdict::Deny),
        (&["gdb", "--ex=shell rm"], Verdict::Deny),
        // What a shell reads as one name.
        (&["sh", "-c", "r\"\"m x"], Verdict::Deny),
        (&["sh", "-c", "r\\m x"], Verdict::Deny),
        (&["sh", "-c", "cd x; 'r'm -rf ."], Verdict::Deny),
        (&["env", "-S", "r''m"], Verdict::Deny),
        (&["sh", "-c", "echo \"form\""], Verdict::Allow),
    ] {
        assert_eq!(p.check_exec(argv).verdict, verdict, "{argv:?}");
    }
}

/// What an ask rule means in addition to what it names takes from what is allowed, and adds nothing to it.
#[test]
fn an_ask_rule_never_weakens() {
    let p = Policy::compile("p", &[profile("p", &["fs.write:/srv/**"], &["fs.write:/srv/app", "fs.write:/etc"], &[])])
        .unwrap();
    for (effect, verdict) in [
        ("fs.write:/srv/app", Verdict::Ask),
        ("fs.write:/srv/app/x", Verdict::Ask),
        ("fs.write:/SRV/app/x", Verdict::Deny),
        ("fs.write:/srv/x", Verdict::Allow),
        ("fs.write:/etc", Verdict::Ask),
        ("fs.write:/etc/passwd", Verdict::Deny),
    ] {
        assert_eq!(p.judge(effect).0, verdict, "{effect}");
    }
}

/// Ten thousand rules, each compared with those only that may cover it.
#[test]
fn lint_is_not_quadratic() {
    let rules: Vec<String> = (0..9_000).map(|n| format!("fs.read:/srv/{n}/**")).collect();
    let mut p = profile("p", &refs(&rules), &[], &[]);
    p.allowed_exec = (0..900).map(|n| format!("tool{n}")).collect();
    let started = std::time::Instant::now();
    assert_eq!(codes(&p).len(), 900);
    assert!(started.elapsed().as_secs() < 3, "{:?}", started.elapsed());
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(
        prop_oneof!["[ab]\\.[ab]", "[ab]\\.\\*", "[ab]\\.[ab]:/[ab]", "[ab]\\.\\*\\*", Just("**".to_owned())],
        0..4,
    )
}
fn asked() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop_oneof!["[ab]\\.[ab]", "[ab]\\.[ab]:/[ab]", "[ab]\\.[ab]:/\\*\\*"], 0..5)
}
fn refs(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn a_deny_always_wins(allow in texts(), ask in texts(), deny in texts(), effects in asked()) {
        let p = Policy::compile("p", &[profile("p", &refs(&allow), &refs(&ask), &refs(&deny))]).unwrap();
        for effect in &effects {
            let parsed = Effect::parse(effect).unwrap();
            let denied = deny.iter().any(|d| Effect::parse_rule(d).unwrap().overlaps(&parsed));
            let verdict = p.judge(effect).0;
            if denied {
                prop_assert_eq!(verdict, Verdict::Deny);
            }
            if verdict == Verdict::Allow {
                prop_assert!(allow.iter().any(|a| Effect::parse_rule(a).unwrap().covers(&parsed)));
                prop_assert!(!ask.iter().any(|a| Effect::parse_rule(a).unwrap().overlaps(&parsed)));
            }
        }
    }

    #[test]
    fn adding_an_allow_never_blocks(allow in texts(), ask in texts(), deny in texts(), more in texts(), effects in asked()) {
        let before = Policy::compile("p", &[profile("p", &refs(&allow), &refs(&ask), &refs(&deny))]).unwrap();
        let wider: Vec<&str> = allow.iter().chain(&more).map(String::as_str).collect();
        let after = Policy::compile("p", &[profile("p", &wider, &refs(&ask), &refs(&deny))]).unwrap();
        let (before, after) = (check(&before, &refs(&effects)), check(&after, &refs(&effects)));
        prop_assert!(after.blocked.iter().all(|e| before.blocked.contains(e)));
    }

    #[test]
    fn order_never_matters(allow in texts(), ask in texts(), deny in texts(), effects in asked(), seed in any::<u64>()) {
        let turn = |list: &[String]| {
            let mut list: Vec<String> = list.to_vec();
            if !list.is_empty() {
                let n = list.len();
                list.rotate_left(seed as usize % n);
            }
            list
        };
        let a = Policy::compile("p", &[profile("p", &refs(&allow), &refs(&ask), &refs(&deny))]).unwrap();
        let b = Policy::compile("p", &[profile("p", &refs(&turn(&allow)), &refs(&turn(&ask)), &refs(&turn(&deny)))]).unwrap();
        prop_assert_eq!(&a.hash, &b.hash);
        for effect in &effects {
            prop_assert_eq!(a.judge(effect).0, b.judge(effect).0);
        }
    }
}
