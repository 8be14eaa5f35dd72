//! Programs that run other programs. Not all of them can be listed: these are what starts programs for its own sake, interpreters, and
//! the programs to which GTFOBins (gtfobins.org, state of 2026-04-20) ascribes the function "shell" or "command".

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::interrupt;

/// Their arguments, or their input, are a command or a script.
const LAUNCHERS: &str = "\
    aa-exec abduco ansible arch-nspawn ash at autossh awk bash batch bpftrace bun bunx busybox bwrap \
    capsh catatonit catchsegv ccache cgexec choom chpst chronic chroot chrt clush cmd command conda \
    coproc cpulimit crontab cscript csh ctr daemon daemonize dash dbus-launch dbus-run-session deno \
    direnv distcc doas docker dotnet dtach dumb-init eatmydata elixir elvish entr env erl eval exec \
    expect fakechroot fakeroot faketime find firejail fish flatpak flock foreman forfiles gawk gdbserver \
    genie ghc ghci gosu grc groovy guile guix hatch heaptrack honcho hyperfine i386 icecc iex ifne ionice \
    irb java jjs jrunscript jshell julia just kitty ksh ksu ld.so linux32 linux64 logsave ltrace lua lxc \
    lxd machinectl mawk mispipe mksh mosh mpiexec mpirun mshta multitime nawk nerdctl newgrp nice nix \
    nix-shell node nodejs nodemon nohup npx nsenter numactl octave openvt osascript overmind parallel pdm \
    pee perf perl pexec php pipx pkexec please pm2 pnpx podman poetry posh powershell prlimit proot \
    proxychains proxychains4 pssh pwsh pypy python r rbash rlwrap rr rscript ruby runcon rundll32 \
    runscript runuser rye s6-setuidgid salloc sash sbatch scala sccache schroot screen script sem service \
    setarch setlock setpriv setsid setuidgid sg sh slsh snap socat softlimit source srun ssh ssh-agent \
    sshpass start start-stop-daemon startx stdbuf strace su su-exec sudo sudo-rs sudoedit systemd-inhibit \
    systemd-nspawn systemd-run taskset tasksh tclsh tcsh time timeout tini tmate tmux torify torsocks \
    toybox ts-node tsp tsx uname26 unbuffer unshare uv uvx valgrind watch watchexec wish wscript wsl \
    x86_64 xargs xdotool xinit xterm xvfb-run yash zsh";

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
            "-O",
            "-u",
            "-x",
            "--cc-cmd",
            "--config-env",
            "--exec",
            "--ext-diff",
            "--extcmd",
            "--httpd",
            "--open-files-in-pager",
            "--receive-pack",
            "--sendmail-cmd",
            "--smtp-server",
            "--to-cmd",
            "--upload-pack",
            "bisect",
            "config",
            "daemon",
            "ext::",
            "filter-branch",
            "foreach",
        ],
    ),
    ("gvim", &["-c", "-s", "-S", "-u", "+", "--cmd"]),
    ("helm", &["--post-renderer"]),
    ("kubectl", &["exec", "debug", "run"]),
    ("lldb", &["-o", "-O", "-s", "--one-line", "--source"]),
    ("make", &["-f", "--eval", "="]),
    ("man", &["-H", "-P", "--html", "--pager"]),
    ("nc", &["-c", "-e", "--exec", "--sh-exec", "--lua-exec"]),
    ("ncat", &["-c", "-e", "--exec", "--sh-exec", "--lua-exec"]),
    ("netcat", &["-c", "-e", "--exec"]),
    ("nmap", &["--script"]),
    ("npm", &["exec", "x", "explore", "run", "--script-shell"]),
    ("nvim", &["-c", "-s", "-S", "-u", "-l", "+", "--cmd"]),
    ("oc", &["exec", "debug", "rsh", "run"]),
    ("pnpm", &["dlx", "exec"]),
    ("rsync", &["-e", "--rsh", "--rsync-path"]),
    ("rvim", &["-c", "-s", "-S", "-u", "+", "--cmd"]),
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
    ("vi", &["-c", "-s", "-S", "-u", "+", "--cmd"]),
    ("view", &["-c", "-s", "-S", "-u", "+", "--cmd"]),
    ("vim", &["-c", "-s", "-S", "-u", "+", "--cmd"]),
    ("wget", &["-e", "--execute", "--use-askpass"]),
    ("yarn", &["dlx", "exec"]),
    ("zip", &["-T", "-TT", "--unzip-command"]),
];

/// A script, a configuration or a key that is typed makes them run a program.
const OTHERS: &str = "\
    acr agetty ansible-playbook ansible-test ant aoss apt-get aria2c asterisk autoconf autoheader \
    autoreconf bconsole borg bundle busctl cabal cdist certbot check_by_ssh check_ssl_cert clisp cmake \
    cobc codex composer cpio crash csvtool dc debugfs dhclient dmsetup dnf dnsmasq dpkg dvips easyrsa ed \
    enscript fail2ban-client fastfetch forge ftp fzf gem ginsh gnuplot go gradle gtester hg hping3 iftop \
    ip ispell joe jtag latex latexmk less lftp loginctl logrotate m4 mail minicom more mosh-server \
    msbuild msgfilter mvn mysql nano ncdu ncftp neofetch ninja nroff open opencode openvpn opkg pdflatex \
    pdftex perlbug pg pic pico pidstat pip pip3 pkg plymouth procmail psftp psql puppet rake ranger rc \
    restic rpm rpmdb rpmquery rpmverify rsyslogd rtorrent run-parts rustup scanmem scrot sed smbclient \
    socket sqlite3 sshfs sshuttle sysctl systemctl task tdbtool telnet tex top virsh wg-quick xdg-open \
    xdg-user-dir yt-dlp yum zathura zic zypper";

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
        Some(Runs::With(known)) => {
            // tar takes its letters without a dash, too.
            let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
            let letters = arguments.first().filter(|given| name.contains("tar") && !given.starts_with('-'));
            let letters = letters.map(|given| format!("-{given}"));
            let given = || arguments.iter().copied().chain(letters.as_deref());
            known.iter().any(|known| interrupt::each(given()).any(|given| is_given(known, given)))
        }
        _ => false,
    }
}

/// The argument `given` is this option, with or without a value, or is this word. A long option may be shortened, and have one
/// dash or two.
fn is_given(known: &str, given: &str) -> bool {
    let name = known.trim_start_matches('-');
    let option = given.trim_start_matches('-');
    match known.len() - name.len() {
        0 => match known {
            "+" | "ext::" => given.starts_with(known),
            "=" => given.contains('='),
            _ => given == known,
        },
        1 if name.chars().count() == 1 => given.starts_with('-') && !given.starts_with("--") && given.contains(name),
        _ => {
            let word = option.split('=').next().unwrap_or_default();
            given.starts_with('-') && option.starts_with(name)
                || given.starts_with("--") && !word.is_empty() && name.starts_with(word)
        }
    }
}

/// Arguments as a shell would read the names in them: without quotes and backslashes. Only those that have some.
pub(super) fn without_quotes(arguments: &[&str]) -> Vec<String> {
    let is_quote = |c: char| matches!(c, '"' | '\'' | '\\');
    let quoted = interrupt::each(arguments).filter(|argument| argument.contains(is_quote));
    quoted.map(|argument| argument.chars().filter(|c| !is_quote(*c)).collect()).collect()
}

/// The programs that the arguments of such a program may name: whole arguments, and the words in them.
pub(super) fn programs_in<'a>(arguments: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    arguments.iter().flat_map(move |argument| {
        let words = interrupt::each(argument.split(move |c| !in_name(c))).flat_map(|word| {
            let name = word.trim_start_matches('-');
            // What follows the letter of an option: env -Srm
            let value = name.char_indices().nth(1).filter(|_| name.len() < word.len()).map(|(at, _)| &name[at..]);
            std::iter::once(name).chain(value)
        });
        std::iter::once(*argument).chain(words).filter(|word| !word.is_empty())
    })
}
