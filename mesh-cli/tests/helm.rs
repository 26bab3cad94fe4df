//! `meshctl manifest generate` and Helm say the same, byte for byte.
//!
//! Helm is found as `HELM`, or on the path. Its `# Source:` lines are all that may differ.

use std::path::PathBuf;
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt as _;

const SETS: [&[&str]; 14] = [
    &[],
    &["--set", "revision=canary"],
    &["--set", "revision=canary,tags={default,stable}"],
    &["--set", "defaultTag=false"],
    &["--set", "control.autoscaling.enabled=true,control.replicas=2"],
    &[
        "--set",
        "networkPolicy.enabled=false,control.disruptionBudget.enabled=false,resourceQuota.enabled=true",
    ],
    &["--set", "image.hub=registry.example.com/mesh,image.tag=1.2.3,image.pullSecrets[0].name=registry"],
    &["--set", "control.resources=null,control.priorityClassName="],
    &[
        "--set",
        "control.nodeSelector.disktype=ssd,control.podLabels.team=mesh,control.podAnnotations.note=a: b",
    ],
    &["--set", "control.tolerations[0].key=dedicated,control.tolerations[0].operator=Exists"],
    &["--set-string", "control.podAnnotations.example\\.com/on=true,control.podAnnotations.n=0123"],
    &["--set", "control.env[0].name=A,control.env[0].value=x y,control.antiAffinity=required"],
    &["--set", "meshConfig.trustDomain=example.org,meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY"],
    &[
        "--set",
        "control.podAnnotations.long=one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
    ],
];
const PROFILES: [&str; 4] = ["default", "minimal", "ha", "demo"];

fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/mini-mesh")
}

fn helm() -> Command {
    Command::new(std::env::var_os("HELM").unwrap_or_else(|| "helm".into()))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic_with(&format!("{command:?}: {error}")));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("it is text")
}

#[expect(clippy::panic, reason = "a test that cannot run has failed")]
fn panic_with(message: &str) -> ! {
    panic!("{message}")
}

#[test]
#[ignore = "needs helm 3: HELM"]
fn the_chart_is_rendered_as_helm_renders_it() {
    for profile in PROFILES {
        for set in SETS {
            let mut theirs = helm();
            theirs.args(["template", "mini-mesh"]).arg(chart());
            theirs.args(["--namespace", "istio-system", "--include-crds", "--kube-version", "1.34.0"]);
            theirs.args(["--set", "namespace.create=true"]);
            theirs.arg("--values").arg(chart().join(format!("profiles/{profile}.yaml"))).args(set);
            let theirs = output(&mut theirs);
            let mut ours = Command::cargo_bin("meshctl").expect("it is built");
            let ours = output(ours.args(["manifest", "generate", "--profile", profile]).args(set));
            let theirs: Vec<&str> =
                theirs.trim_end().lines().filter(|line| !line.starts_with("# Source: ")).collect();
            let ours: Vec<&str> = ours.trim_end().lines().collect();
            let first = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            if let Some(at) = first {
                let from = at.saturating_sub(8);
                assert_eq!(ours[from..=at], theirs[from..=at], "{profile} {set:?}, line {at}");
            }
            assert_eq!(ours.len(), theirs.len(), "{profile} {set:?}");
        }
    }
}

#[test]
#[ignore = "needs helm 3: HELM"]
fn helm_finds_nothing_wrong_with_the_chart() {
    let said = output(helm().args(["lint", "--strict", "--namespace", "istio-system"]).arg(chart()));
    assert!(said.contains("0 chart(s) failed"), "{said}");
}

#[test]
#[ignore = "needs helm 3: HELM"]
fn helm_refuses_what_meshctl_refuses() {
    for set in
        ["control.replica=3", "image.pullPolicy=Sometimes", "revision=Not_a_name", "control.replicas=many"]
    {
        let mut theirs = helm();
        theirs.args(["template", "mini-mesh"]).arg(chart());
        theirs.args(["--namespace", "istio-system", "--kube-version", "1.34.0", "--set", set]);
        assert!(!theirs.output().expect("helm runs").status.success(), "helm takes {set}");
        let mut ours = Command::cargo_bin("meshctl").expect("it is built");
        let ours = ours.args(["manifest", "generate", "--set", set]).output().expect("meshctl runs");
        assert!(!ours.status.success(), "meshctl takes {set}");
    }
}
