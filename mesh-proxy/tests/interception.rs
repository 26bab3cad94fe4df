//! Rules as the kernel has them: handed over by netlink, and read back by `nft`, which knows nothing of us.

use std::process::{Command, Output};

/// Every kind of rule.
const ALL: [&str; 22] = [
    "--fwmark",
    "7",
    "--exclude-uid",
    "1337,4294967294",
    "--exclude-inbound-ports",
    "22,9090",
    "--exclude-outbound-ports",
    "25",
    "--exclude-outbound-cidrs",
    "10.0.0.0/8,172.16.0.0/12,192.0.2.7/32,192.168.1.0/24,fd00::/8,fe80::/10,2001:db8::1/128",
    "--include-inbound-ports",
    "8080,65535",
    "--include-outbound-ports",
    "443",
    "--include-outbound-cidrs",
    "0.0.0.0/0,2000::/3",
    "--outbound-port",
    "1",
    "--inbound-port",
    "2",
    "--dns-port",
    "3",
];
const POD: [&str; 4] = ["--fwmark", "0", "--exclude-uid", "1337"];

/// Runs a shell script in a network namespace of its own, which ends with it. `$0` is the proxy.
fn alone(script: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-ec", script, env!("CARGO_BIN_EXE_mesh-proxy")]).args(arguments);
    command.output().expect("unshare is there")
}

fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
#[ignore = "needs root and nftables"]
fn the_kernel_has_the_very_rules_that_nft_makes_of_what_is_shown() {
    for flags in [&[][..], &POD, &ALL] {
        let ours = alone("\"$0\" intercept install \"$@\"; nft list ruleset", flags);
        let theirs = alone("\"$0\" intercept show \"$@\" | nft -f -; nft list ruleset", flags);
        let (ours, theirs) = (text(&ours), text(&theirs));
        assert!(ours.contains("table inet mini_mesh") && ours.contains("redirect to :"), "{ours}");
        assert_eq!(ours, theirs);
    }
}

#[test]
#[ignore = "needs root and nftables"]
fn rules_replace_earlier_ones_and_leave_those_of_others_alone() {
    let script = "nft add table inet other; \
                  \"$0\" intercept install --exclude-outbound-ports 25; \"$0\" intercept install; \
                  nft list ruleset; \
                  \"$0\" intercept remove; \"$0\" intercept remove; echo removed; nft list ruleset";
    let output = text(&alone(script, &[]));
    let (installed, removed) = output.split_once("removed").expect("it was removed");
    assert_eq!(installed.matches("redirect to :15001").count(), 1, "{installed}");
    assert!(!installed.contains("dport 25"), "{installed}");
    assert!(installed.contains("table inet other") && removed.contains("table inet other"), "{output}");
    assert!(!removed.contains("mini_mesh"), "{removed}");
}

#[test]
#[ignore = "needs root and nftables"]
fn they_are_installed_where_there_is_no_ipv6_and_no_program() {
    let script = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \
                  PATH= \"$0\" intercept install; nft list ruleset";
    assert!(text(&alone(script, &[])).contains("redirect to :15006"));
}

#[test]
#[ignore = "needs root and nftables"]
fn without_the_privilege_nothing_changes_and_the_error_says_which_one_is_missing() {
    let script = "setpriv --reuid 65534 --clear-groups --bounding-set=-all --inh-caps=-all \
                  \"$0\" intercept install && exit 1; nft list ruleset";
    let output = alone(script, &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    assert_eq!(text(&output), "");
}
