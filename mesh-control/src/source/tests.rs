use super::file::Reading;
use super::folder::{Folder, Obey, Scan};
use super::*;
use crate::fixture::object;
use mesh_api::model::{Kind, ObjectRef};
use std::collections::BTreeMap;
use std::fs;

fn policy(name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  \
         namespace: backend\nspec:\n  action: ALLOW\n  rules:\n  - to:\n    - operation:\n        methods: [\"PUT\"]\n"
    )
}

fn broken(name: &str) -> String {
    policy(name).replace("action:", "acton:")
}

fn files(names: &[&str]) -> String {
    names.iter().map(|name| policy(name)).collect::<Vec<_>>().join("---\n")
}

fn reference(name: &str) -> ObjectRef {
    object(Kind::AuthorizationPolicy, "backend", name)
}

/// A look that finds these files.
fn listed<'t>(found: impl IntoIterator<Item = (&'t str, String)>) -> Scan {
    let files = found.into_iter().map(|(file, text)| (file.into(), Reading::Text(text.into()))).collect();
    Scan::Listed { files, unlisted: BTreeMap::new() }
}

fn look(folder: &mut Folder, scan: Scan) {
    folder.advance(scan, &Context::default(), Obey::UnlessAccident);
}

/// Names in force, with a `*` if held.
fn in_force(folder: &Folder) -> Vec<String> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    folder.collect(&mut documents, &mut problems);
    documents.sort_by(|a, b| a.object.cmp(&b.object));
    let star = |held: bool| if held { "*" } else { "" };
    documents.iter().map(|entry| format!("{}{}", entry.object.name, star(entry.is_held))).collect()
}

fn problems(folder: &Folder) -> Vec<String> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    folder.collect(&mut documents, &mut problems);
    problems.into_iter().map(|problem| problem.code).collect()
}

fn is_suspended(folder: &Folder) -> bool {
    folder.status(Path::new("config")).suspended.is_some()
}

#[test]
fn a_broken_document_holds_its_own_object_only() {
    let mut folder = Folder::default();
    look(&mut folder, listed([("f.yaml", files(&["a", "b", "c"]))]));
    look(&mut folder, listed([("f.yaml", format!("{}---\n{}", policy("a"), broken("b")))]));
    assert_eq!(in_force(&folder), ["a", "b*"], "c was deleted on purpose");
    assert_eq!(problems(&folder), ["IST0106"]);
    look(&mut folder, listed([("f.yaml", files(&["a", "b"]))]));
    assert_eq!(in_force(&folder), ["a", "b"]);
    assert_eq!(problems(&folder), Vec::<String>::new());
}

#[test]
fn a_document_that_cannot_be_told_holds_whatever_is_missing() {
    let mut folder = Folder::default();
    look(&mut folder, listed([("f.yaml", files(&["a", "b", "c"]))]));
    look(&mut folder, listed([("f.yaml", format!("{}---\n}}{{ not yaml", policy("a")))]));
    assert_eq!(in_force(&folder), ["a", "b*", "c*"]);
    look(&mut folder, listed([("f.yaml", policy("a"))]));
    assert_eq!(in_force(&folder), ["a"]);
}

#[test]
fn a_file_that_is_cut_off_holds_what_followed() {
    let whole = files(&["a", "b", "c"]);
    for cut in ["name: b", "namespace: backend\nspec:", "\"PUT"] {
        let mut folder = Folder::default();
        look(&mut folder, listed([("f.yaml", whole.clone())]));
        let first = whole.find("name: b").expect("the second policy");
        let at = first + whole[first..].find(cut).expect("a place to cut") + cut.len();
        look(&mut folder, listed([("f.yaml", whole[..at].to_owned())]));
        assert_eq!(in_force(&folder), ["a", "b*", "c*"], "cut at {cut:?}");
        assert_eq!(problems(&folder).len(), 1);
    }
}

#[test]
fn an_empty_or_unreadable_file_holds_everything_in_it() {
    for reading in [Reading::Text(" \n".into()), Reading::Unreadable("permission denied".into())] {
        let mut folder = Folder::default();
        look(&mut folder, listed([("f.yaml", files(&["a", "b"])), ("g.yaml", policy("g"))]));
        let text = Reading::Text(policy("g").into());
        let files = BTreeMap::from([("f.yaml".into(), reading), ("g.yaml".into(), text)]);
        look(&mut folder, Scan::Listed { files, unlisted: BTreeMap::new() });
        assert_eq!(in_force(&folder), ["a*", "b*", "g"]);
        assert_eq!(problems(&folder).len(), 1);
    }
}

#[test]
fn deleting_one_file_of_several_deletes_its_objects() {
    let mut folder = Folder::default();
    look(&mut folder, listed([("f.yaml", files(&["a", "b"])), ("g.yaml", policy("g"))]));
    look(&mut folder, listed([("g.yaml", policy("g"))]));
    assert_eq!(in_force(&folder), ["g"]);
    assert!(!is_suspended(&folder));
}

#[test]
fn deleting_the_only_object_is_obeyed() {
    let mut folder = Folder::default();
    look(&mut folder, listed([("f.yaml", policy("a"))]));
    look(&mut folder, listed([]));
    assert_eq!(in_force(&folder), Vec::<String>::new());
}

#[test]
fn a_folder_that_empties_at_once_is_held_until_objects_come_back_or_it_is_confirmed() {
    let mut folder = Folder::default();
    let full = || listed([("f.yaml", policy("a")), ("g.yaml", policy("g"))]);
    look(&mut folder, full());
    look(&mut folder, listed([]));
    assert!(is_suspended(&folder));
    look(&mut folder, listed([("g.yaml", policy("g"))]));
    assert_eq!(in_force(&folder), ["a*", "g"], "what has not come back was dropped");
    look(&mut folder, full());
    assert_eq!(in_force(&folder), ["a", "g"]);
    assert!(!is_suspended(&folder));
    look(&mut folder, listed([]));
    folder.advance(listed([]), &Context::default(), Obey::Everything);
    assert_eq!(in_force(&folder), Vec::<String>::new());
    assert!(!is_suspended(&folder));
}

#[test]
fn a_folder_that_vanishes_is_held_even_with_one_object() {
    let mut folder = Folder::default();
    look(&mut folder, listed([("f.yaml", policy("a"))]));
    look(&mut folder, Scan::Gone("no such file".into()));
    assert_eq!(in_force(&folder), ["a*"]);
    assert!(is_suspended(&folder));
    look(&mut folder, listed([("f.yaml", policy("a"))]));
    assert_eq!(in_force(&folder), ["a"]);
    assert!(!is_suspended(&folder));
}

#[test]
fn most_of_many_files_at_once_is_an_accident_and_a_move_is_not() {
    let names: Vec<String> = (0..12).map(|number| format!("p{number:02}")).collect();
    let at = |place: &str, from: usize| {
        let files = names[from..].iter();
        let files =
            files.map(|name| (format!("{place}/{name}.yaml").into(), Reading::Text(policy(name).into())));
        Scan::Listed { files: files.collect(), unlisted: BTreeMap::new() }
    };
    let mut folder = Folder::default();
    look(&mut folder, at("old", 0));
    look(&mut folder, at("old", 7));
    assert_eq!(in_force(&folder).len(), 12);
    assert!(is_suspended(&folder));
    look(&mut folder, at("old", 0));
    look(&mut folder, at("new", 0));
    assert_eq!(in_force(&folder).len(), 12);
    assert!(!is_suspended(&folder), "objects that moved are taken for lost");
    look(&mut folder, at("new", 5));
    assert_eq!(in_force(&folder).len(), 7, "less than half is obeyed");
}

#[test]
fn a_part_that_cannot_be_listed_is_held() {
    let mut folder = Folder::default();
    look(&mut folder, listed([("c/sub/f.yaml", policy("a")), ("c/g.yaml", policy("g"))]));
    let files = BTreeMap::from([("c/g.yaml".into(), Reading::Text(policy("g").into()))]);
    let unlisted = BTreeMap::from([("c/sub/".into(), "permission denied".to_owned())]);
    look(&mut folder, Scan::Listed { files, unlisted });
    assert_eq!(in_force(&folder), ["a*", "g"]);
    assert_eq!(problems(&folder), ["MM0103"]);
}

struct Disk {
    root: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("config")).expect("made");
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("config").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn directories(&self) -> Directories {
        let store = LastGood::open(&self.root.path().join("state")).expect("opened");
        Directories::new(&[self.root.path().join("config")], store, Context::default())
    }
}

fn names(view: &View) -> Vec<String> {
    let mut names: Vec<_> = view.documents.iter().map(|entry| entry.object.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn manifests_are_found_in_sub_folders_and_nothing_else_is_read() {
    let disk = Disk::new();
    disk.write("a.yaml", &policy("a"));
    disk.write("sub/deep/b.yml", &policy("b"));
    for other in ["c.yaml~", ".d.yaml", ".git/e.yaml", "f.txt", "#g.yaml#", ".h.yaml.swp"] {
        disk.write(other, &policy("other"));
    }
    std::os::unix::fs::symlink(disk.root.path().join("config"), disk.path("loop")).expect("linked");
    let view = disk.directories().look(Depth::Stamps, &[]).expect("the first look");
    assert_eq!(names(&view), ["a", "b"]);
    assert!(view.problems.is_empty(), "{:?}", view.problems);
}

#[test]
fn a_mounted_config_map_is_followed_through_its_links() {
    let disk = Disk::new();
    disk.write("..one/p.yaml", &policy("a"));
    std::os::unix::fs::symlink("..one", disk.path("..data")).expect("linked");
    std::os::unix::fs::symlink("..data/p.yaml", disk.path("p.yaml")).expect("linked");
    let mut directories = disk.directories();
    assert_eq!(names(&directories.look(Depth::Stamps, &[]).expect("a look")), ["a"]);
    disk.write("..two/p.yaml", &policy("b"));
    std::os::unix::fs::symlink("..two", disk.path("..new")).expect("linked");
    fs::rename(disk.path("..new"), disk.path("..data")).expect("swapped");
    assert_eq!(names(&directories.look(Depth::Stamps, &[]).expect("a change")), ["b"]);
    fs::remove_file(disk.path("..data")).expect("removed");
    let view = directories.look(Depth::Stamps, &[]).expect("a change");
    assert_eq!(names(&view), ["b"], "a dangling link took its objects away");
    assert!(view.documents[0].is_held);
}

#[test]
fn looking_again_at_the_same_changes_nothing() {
    let disk = Disk::new();
    disk.write("a.yaml", &policy("a"));
    let mut directories = disk.directories();
    assert!(directories.look(Depth::Content, &[]).is_some());
    assert!(directories.look(Depth::Stamps, &[]).is_none());
    assert!(directories.look(Depth::Content, &[]).is_none());
}

#[test]
fn the_last_good_version_outlives_a_kill_and_a_deletion_while_nobody_watches_is_obeyed() {
    let disk = Disk::new();
    disk.write("a.yaml", &format!("# first\n\n{}", policy("a")));
    disk.write("b.yaml", &policy("b"));
    disk.write("c.yaml", &policy("c"));
    let line =
        |view: &View| view.documents.iter().find(|d| d.object == reference("a")).map(|d| d.origin.line);
    let before = disk.directories().look(Depth::Content, &[]).expect("a look");
    disk.write("a.yaml", &broken("a"));
    fs::remove_file(disk.path("b.yaml")).expect("removed");
    let mut directories = disk.directories();
    let view = directories.look(Depth::Content, &[]).expect("a look");
    assert_eq!(names(&view), ["a", "c"]);
    assert_eq!(line(&view), line(&before));
    assert_eq!(view.folders[0].held, [reference("a")]);
    fs::write(disk.root.path().join("state").join("x.json"), b"{\"half").expect("written");
    let view = disk.directories().look(Depth::Content, &[]).expect("a look");
    assert_eq!(names(&view), ["a", "c"]);
    assert!(view.problems.iter().any(|problem| problem.code == "MM0104"), "damage is not reported");
}

#[test]
fn a_folder_that_is_gone_at_the_start_is_held_too() {
    let disk = Disk::new();
    disk.write("a.yaml", &policy("a"));
    disk.directories().look(Depth::Content, &[]).expect("a look");
    fs::remove_dir_all(disk.root.path().join("config")).expect("removed");
    let view = disk.directories().look(Depth::Content, &[]).expect("a look");
    assert_eq!(names(&view), ["a"]);
    assert!(view.folders[0].suspended.is_some());
}
