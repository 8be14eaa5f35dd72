//! Programs that run other programs. Not all of them can be listed: these are what starts programs for its own sake, interpreters, and
//! the programs to which GTFOBins (gtfobins.org, state of 2026-04-20) ascribes the function "shell" or "command".

use std::collections::HashSet;
use std::sync::LazyLock;

/// Their arguments, or their input, are a command or a script.
const LAUNCHERS: &str = "\
    aa-exec arch-nspawn ash at awk bash batch bpftrace bun bunx busybox bwrap capsh catchsegv choom \
    chpst chroot chrt cmd command coproc cpulimit crontab cscript csh ctr daemonize dash \
    dbus-run-session deno doas docker dotnet dumb-init eatmydata elixir elvish entr env erl eval exec \
    expect fakechroot fakeroot faketime find firejail fish flatpak flock forfiles gawk gdbserver genie \
    ghc ghci gosu groovy guile hyperfine i386 iex ionice irb java jjs jrunscript jshell julia kitty ksh \
    ksu ld.so linux32 linux64 logsave ltrace lua lxc lxd machinectl mawk mksh mosh mshta multitime nawk \
    nerdctl newgrp nice nix-shell node nodejs nohup npx nsenter numactl octave openvt osascript parallel \
    perl pexec php pipx pkexec pnpx podman posh powershell prlimit proot proxychains proxychains4 pwsh \
    pypy python r rbash rlwrap rscript ruby runcon rundll32 runscript runuser sash scala schroot screen \
    script sem service setarch setlock setpriv setsid setuidgid sg sh slsh snap socat softlimit source \
    ssh sshpass start start-stop-daemon stdbuf strace su sudo sudoedit systemd-nspawn systemd-run \
    taskset tasksh tclsh tcsh time timeout tini tmate tmux torify torsocks toybox tsp uname26 unbuffer \
    unshare uv uvx valgrind watch wish wscript wsl x86_64 xargs xdotool xterm xvfb-run yash zsh";

/// They run what one of these arguments names: an option, or a word. A short option may stand among others (`-avze`).
const BY_ARGUMENT: [(&str, &[&str]); 35] = [
    ("bsdtar", &["--use-compress-program"]),
    ("cc", &["-B", "-wrapper"]),
    ("emacs", &["-l", "-f", "--eval", "--load", "--funcall"]),
    ("ex", &["-c", "+", "--cmd"]),
    ("gcc", &["-B", "-wrapper"]),
    ("gdb", &["-x", "-ex", "-iex", "-eval-command", "--args", "--command", "--eval-command"]),
    (
        "git",
        &[
            "-c",
            "-x",
            "--config-env",
            "--exec",
            "--extcmd",
            "--upload-pack",
            "--receive-pack",
            "--ext-diff",
            "bisect",
            "daemon",
            "filter-branch",
            "foreach",
        ],
    ),
    ("gvim", &["-c", "-S", "+", "--cmd"]),
    ("helm", &["--post-renderer"]),
    ("kubectl", &["exec", "debug", "run"]),
    ("lldb", &["-o", "-O", "-s", "--one-line", "--source"]),
    ("make", &["-f", "--eval"]),
    ("man", &["-H", "-P", "--html", "--pager"]),
    ("nc", &["-c", "-e", "--exec", "--sh-exec", "--lua-exec"]),
    ("ncat", &["-c", "-e", "--exec", "--sh-exec", "--lua-exec"]),
    ("netcat", &["-c", "-e", "--exec"]),
    ("nmap", &["--script"]),
    ("npm", &["exec", "x", "explore", "--script-shell"]),
    ("nvim", &["-c", "-S", "-l", "+", "--cmd"]),
    ("oc", &["exec", "debug", "rsh", "run"]),
    ("pnpm", &["dlx", "exec"]),
    ("rsync", &["-e", "--rsh", "--rsync-path"]),
    ("rvim", &["-c", "-S", "+", "--cmd"]),
    ("scp", &["-S", "-o"]),
    ("sftp", &["-S", "-D", "-o"]),
    ("sort", &["--compress-program"]),
    ("split", &["--filter"]),
    (
        "tar",
        &[
            "-F",
            "-I",
            "--checkpoint-action",
            "--info-script",
            "--new-volume-script",
            "--rmt-command",
            "--rsh-command",
            "--to-command",
            "--use-compress-program",
        ],
    ),
    ("tcpdump", &["-z"]),
    ("vi", &["-c", "-S", "+", "--cmd"]),
    ("view", &["-c", "-S", "+", "--cmd"]),
    ("vim", &["-c", "-S", "+", "--cmd"]),
    ("wget", &["--use-askpass"]),
    ("yarn", &["dlx", "exec"]),
    ("zip", &["-T", "-TT", "--unzip-command"]),
];

/// A script, a configuration or a key that is typed makes them run a program.
const OTHERS: &str = "\
    acr agetty ansible-playbook ansible-test ant aoss apt-get aria2c asterisk autoconf autoheader \
    autoreconf bconsole borg bundle busctl cabal cdist certbot check_by_ssh check_ssl_cert clisp cmake \
    cobc codex composer cpio crash csvtool dc debugfs dhclient distcc dmsetup dnf dnsmasq dpkg dvips \
    easyrsa ed enscript fail2ban-client fastfetch forge ftp fzf gem ginsh gnuplot go gradle grc gtester \
    hg hping3 iftop ip ispell joe jtag latex latexmk less lftp loginctl logrotate m4 mail minicom more \
    mosh-server msbuild msgfilter mvn mysql nano ncdu ncftp neofetch ninja nroff open opencode openvpn \
    opkg pdflatex pdftex perf perlbug pg pic pico pidstat pip pip3 pkg plymouth procmail psftp psql \
    puppet rake ranger rc restic rpm rpmdb rpmquery rpmverify rsyslogd rtorrent run-parts rustup scanmem \
    scrot sed smbclient socket sqlite3 ssh-agent sshfs sshuttle sysctl systemctl task tdbtool telnet tex \
    top virsh wg-quick xdg-open xdg-user-dir yt-dlp yum zathura zic zypper";

/// How a program comes to run another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    Always,
    /// Where one of these arguments is given.
    With(&'static [&'static str]),
    Otherwise,
}

/// `None` where nothing is known. A version or a variant may end the name (`python3.12`, `vim.tiny`), and a `g` begin it (GNU's on
/// other systems).
fn runs(program: &str) -> Option<Runs> {
    static WORDS: LazyLock<[HashSet<&str>; 2]> =
        LazyLock::new(|| [LAUNCHERS, OTHERS].map(|words| words.split_whitespace().collect()));
    let name = program.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
    let name = [".exe", ".com", ".bat", ".cmd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    // The dynamic loader: ld-linux-x86-64.so.2, ld-musl-aarch64.so.1, ld64.so.2
    if name.starts_with("ld") && name.contains(".so") {
        return Some(Runs::Always);
    }
    let base = name.split('.').next().unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    let find = |name: &str| {
        let [launchers, others] = &*WORDS;
        let with = || BY_ARGUMENT.iter().find(|(known, _)| *known == name).map(|(_, arguments)| Runs::With(arguments));
        match launchers.contains(name) {
            true => Some(Runs::Always),
            false => with().or_else(|| others.contains(name).then_some(Runs::Otherwise)),
        }
    };
    [name, base].into_iter().find_map(|name| find(name).or_else(|| find(name.strip_prefix('g')?)))
}

/// Whether a program, by name or path, can run others.
pub(super) fn runs_programs(program: &str) -> bool {
    runs(program).is_some()
}

/// Whether a program runs what these arguments may name.
pub(super) fn runs_arguments(program: &str, arguments: &[&str]) -> bool {
    match runs(program) {
        Some(Runs::Always) => true,
        Some(Runs::With(known)) => arguments.iter().any(|given| known.iter().any(|known| is_given(known, given))),
        _ => false,
    }
}

/// The argument `given` is this option, with or without a value, or is this word.
fn is_given(known: &str, given: &str) -> bool {
    match known.strip_prefix('-') {
        Some(letter) if letter.chars().count() == 1 => {
            given.starts_with('-') && !given.starts_with("--") && given.contains(letter)
        }
        Some(_) => given.starts_with(known),
        None => given == known || (known == "+" && given.starts_with('+')),
    }
}

/// The programs that the arguments of such a program may name: whole arguments, and the words in them.
pub(super) fn programs_in<'a>(arguments: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    arguments.iter().flat_map(move |argument| {
        let words = argument.split(move |c| !in_name(c)).flat_map(|word| {
            let name = word.trim_start_matches('-');
            // What follows the letter of an option: env -Srm
            let value = name.char_indices().nth(1).filter(|_| name.len() < word.len()).map(|(at, _)| &name[at..]);
            std::iter::once(name).chain(value)
        });
        std::iter::once(*argument).chain(words).filter(|word| !word.is_empty())
    })
}
