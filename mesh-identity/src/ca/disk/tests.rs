use super::*;
use crate::ca::Issuer as _;
use crate::fixture::{HOUR, domain, id, now, workload};
use tempfile::TempDir;

const CATALOG: &str = "spiffe://cluster.local/ns/backend/sa/catalog";
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

fn settings() -> CaSettings {
    CaSettings::new(domain("cluster.local"))
}

/// A place for a state directory that does not exist yet.
fn place() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("ca");
    (parent, path)
}

fn load(path: &Path, now: SystemTime) -> Result<(Authority, Origin), DiskError> {
    StateDirectory::open(path)?.load_or_create(settings(), now)
}

/// A place with a state in it, and the authority that was stored.
fn stored() -> (TempDir, PathBuf, Authority) {
    let (parent, path) = place();
    let (authority, origin) = load(&path, now()).expect("created");
    assert_eq!(origin, Origin::Created);
    (parent, path, authority)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permitted");
}

#[test]
fn directory_and_files_are_their_owners_only() {
    let (_parent, path, _) = stored();
    assert_eq!(mode(&path), 0o700);
    for name in [STATE_FILE, ROOT_FILE, LOCK_FILE] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
}

#[test]
fn an_authority_survives_a_restart() {
    let (_parent, path, before) = stored();
    let svid = workload(&before, &id(CATALOG), HOUR, now());
    let (after, origin) = load(&path, now() + HOUR).expect("loaded");
    assert_eq!(origin, Origin::Loaded);
    assert_eq!(after.root_certificate(), before.root_certificate());
    assert_eq!(after.intermediate_certificate(), before.intermediate_certificate());
    assert_eq!(after.trust_bundle(), before.trust_bundle());
    // What the first has signed is good by the second, and the second signs as well.
    let domains = [domain("cluster.local")];
    for svid in [svid, workload(&after, &id(CATALOG), HOUR, now())] {
        let role = crate::verify::PeerRole::Client;
        crate::verify::verify_peer(svid.chain(), &after.trust_bundle(), &domains, role, now()).expect("good");
    }
}

#[test]
fn an_intermediate_that_is_due_is_followed_on_load_and_the_next_one_is_kept() {
    let (_parent, path, before) = stored();
    let later = now() + 16 * DAY;
    let (rotated, _) = load(&path, later).expect("loaded");
    assert_ne!(rotated.intermediate_certificate(), before.intermediate_certificate());
    let (again, _) = load(&path, later).expect("loaded");
    assert_eq!(again.intermediate_certificate(), rotated.intermediate_certificate());
    assert_eq!(again.root_certificate(), before.root_certificate());
}

#[test]
fn a_half_written_new_state_changes_nothing() {
    let (_parent, path, before) = stored();
    let whole = fs::read(path.join(STATE_FILE)).expect("state");
    fs::write(path.join(ASIDE_FILE), &whole[..whole.len() / 2]).expect("written");
    set_mode(&path.join(ASIDE_FILE), 0o644);
    let (after, _) = load(&path, now()).expect("loaded");
    assert_eq!(after.root_certificate(), before.root_certificate());
    // The next change of the state goes through, with its own permissions and not the leftover's.
    let later = now() + 16 * DAY;
    load(&path, later).expect("rotated");
    assert_eq!(mode(&path.join(STATE_FILE)), 0o600);
    assert!(!path.join(ASIDE_FILE).exists());
}

#[test]
fn a_truncated_state_is_an_error_at_every_length_and_never_a_new_root() {
    let (_parent, path, _) = stored();
    let state = path.join(STATE_FILE);
    let whole = fs::read(&state).expect("state");
    for length in (0..whole.len()).step_by(97) {
        fs::write(&state, &whole[..length]).expect("written");
        assert!(matches!(load(&path, now()), Err(DiskError::Damaged { .. })), "{length}");
    }
    assert_eq!(fs::read(&state).expect("state").len(), (whole.len() - 1) / 97 * 97, "the file was touched");
}

#[test]
fn a_lost_state_is_an_error_and_never_a_new_root() {
    let (_parent, path, _) = stored();
    fs::remove_file(path.join(STATE_FILE)).expect("removed");
    assert!(matches!(load(&path, now()), Err(DiskError::Missing { .. })));
    // Also when the mark is a dangling link: something is there.
    fs::remove_file(path.join(ROOT_FILE)).expect("removed");
    std::os::unix::fs::symlink("nowhere", path.join(ROOT_FILE)).expect("linked");
    assert!(matches!(load(&path, now()), Err(DiskError::Missing { .. })));
}

#[test]
fn a_crash_between_state_and_root_copy_is_mended() {
    let (_parent, path, before) = stored();
    fs::remove_file(path.join(ROOT_FILE)).expect("removed");
    let (after, _) = load(&path, now()).expect("loaded");
    assert_eq!(after.root_certificate(), before.root_certificate());
    assert_eq!(
        fs::read_to_string(path.join(ROOT_FILE)).expect("copy"),
        crate::certificate::to_pem(before.root_certificate())
    );
}

#[test]
fn what_others_may_use_is_refused() {
    for bits in [0o640, 0o604, 0o660, 0o777] {
        let (_parent, path, _) = stored();
        set_mode(&path.join(STATE_FILE), bits);
        assert!(
            matches!(load(&path, now()), Err(DiskError::Permissions { mode, .. }) if mode == bits),
            "{bits:o}"
        );
    }
    for bits in [0o750, 0o701, 0o770] {
        let (_parent, path, _) = stored();
        set_mode(&path, bits);
        assert!(
            matches!(load(&path, now()), Err(DiskError::Permissions { mode, .. }) if mode == bits),
            "{bits:o}"
        );
    }
}

#[test]
fn links_are_not_followed() {
    let (parent, path, _) = stored();
    let aside = parent.path().join("elsewhere");
    fs::rename(path.join(STATE_FILE), &aside).expect("moved");
    std::os::unix::fs::symlink(&aside, path.join(STATE_FILE)).expect("linked");
    assert!(matches!(load(&path, now()), Err(DiskError::NotPlain { expected: "file", .. })));
    let link = parent.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    assert!(matches!(load(&link, now()), Err(DiskError::NotPlain { expected: "directory", .. })));
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let (_parent, path) = place();
    let first = StateDirectory::open(&path).expect("opened");
    assert!(matches!(StateDirectory::open(&path), Err(DiskError::Locked { .. })));
    drop(first);
    assert!(StateDirectory::open(&path).is_ok());
}

#[test]
fn a_state_of_another_mesh_or_form_is_refused() {
    let (_parent, path, _) = stored();
    let other = CaSettings::new(domain("other.example"));
    let refused = StateDirectory::open(&path).expect("opened").load_or_create(other, now());
    assert!(matches!(refused, Err(DiskError::Unusable { source, .. })
        if matches!(*source, AssembleError::TrustDomain { .. })));
    let state = path.join(STATE_FILE);
    let text = fs::read_to_string(&state).expect("state").replace("\"version\": 1", "\"version\": 2");
    fs::write(&state, text).expect("written");
    assert!(matches!(load(&path, now()), Err(DiskError::Version { found: 2, .. })));
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    type Json = serde_json::Value;
    let change = |edit: &dyn Fn(&mut Json, &Json)| {
        let (_parent, path, _) = stored();
        let (_other_parent, other, _) = stored();
        let read = |path: &Path| -> Json {
            serde_json::from_slice(&fs::read(path.join(STATE_FILE)).expect("state")).expect("JSON")
        };
        let (mut state, other) = (read(&path), read(&other));
        edit(&mut state, &other);
        fs::write(path.join(STATE_FILE), state.to_string()).expect("written");
        load(&path, now()).expect_err("refused")
    };
    let reason = |error| match error {
        DiskError::Unusable { source, .. } => *source,
        other => unreachable!("{other:?}"),
    };
    let error = change(&|state, other| state["root"]["private_key"] = other["root"]["private_key"].clone());
    assert!(matches!(reason(error), AssembleError::KeyMismatch { role: "root" }));
    let error = change(&|state, other| state["intermediate"] = other["intermediate"].clone());
    assert!(matches!(reason(error), AssembleError::Chain));
    let error = change(&|state, _| state["root"]["certificate"] = Json::from("no PEM"));
    assert!(matches!(error, DiskError::Pem { part: "root", .. }));
    let error = change(&|state, _| state["surprise"] = Json::from(1));
    assert!(matches!(error, DiskError::Damaged { .. }));
}

#[test]
fn a_file_larger_than_any_state_is_not_read() {
    let (_parent, path, _) = stored();
    let file = OpenOptions::new().write(true).open(path.join(STATE_FILE)).expect("opened");
    file.set_len(STATE_BYTES_MAX + 1).expect("stretched");
    assert!(matches!(load(&path, now()), Err(DiskError::TooLarge { .. })));
}

#[test]
fn no_message_shows_a_key() {
    let (_parent, path, authority) = stored();
    let text = fs::read_to_string(path.join(STATE_FILE)).expect("state");
    let stored: StoredAuthority = serde_json::from_str(&text).expect("JSON");
    let secret = stored.root.private_key.lines().nth(1).expect("a line of base64").to_owned();
    assert!(text.contains(&secret), "the test looks for the wrong text");
    let damaged = text.replace("\"root\"", "\"rot\"");
    fs::write(path.join(STATE_FILE), damaged).expect("written");
    let error = load(&path, now()).expect_err("damaged");
    assert!(!format!("{error:?} {error} {authority:?}").contains(&secret));
}
