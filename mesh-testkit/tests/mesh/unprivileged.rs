//! A user who may make no namespaces is told what is missing, and nothing is started or left.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use mesh_testkit::{Answer, MeshLayout};

/// A user without an account and without any privilege.
const STRANGER: &str = "23456";

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn where_user_namespaces_are_forbidden_it_is_said_how_to_allow_them() {
    let layout = MeshLayout::new().file("mesh.yaml", "workloads: [{name: a, command: [sleep, infinity]}]\n");
    // The limit is one of the user namespace that it is written in, so the machine's own stays as it is. What
    // is started there holds no capability, like an ordinary user.
    let forbidden = "echo 0 > /proc/sys/user/max_user_namespaces && \
                     exec setpriv --bounding-set=-all --inh-caps=-all bin/meshctl up -d";
    let identity =
        [format!("--reuid={STRANGER}"), format!("--regid={STRANGER}"), "--clear-groups".to_owned()];
    let mut command = Command::new("setpriv");
    command.args(identity).args(["unshare", "--user", "--map-root-user", "sh", "-c", forbidden]);
    let state = layout.path("scratch/state");
    command.current_dir(layout.path("")).env("MESH_STATE_DIR", &state).env("HOME", layout.path("scratch"));
    let answer: Answer = command.output().expect("setpriv runs").into();
    assert_eq!(answer.status, Some(1), "{answer:?}");
    let expected = "error: this machine does not let you make the namespaces that a local mesh needs: user \
                    namespaces are limited to none; allow them with `sysctl -w user.max_user_namespaces=10000`, \
                    or use root";
    assert_eq!(answer.err.trim(), expected);
    assert!(!state.exists(), "{:?}", state.metadata().map(|found| found.permissions().mode()));
}
