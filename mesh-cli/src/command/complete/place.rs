//! What a command line lacks at the place of the cursor (pure): the value of which flag, or which argument of
//! which command. The tree of commands is clap's own, so that nothing of it is written down twice.

use clap::{Arg, Command};

/// What is to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A workload or pod, or what has pods.
    Workload,
    /// A namespace.
    Namespace,
    /// A context of the kubeconfig.
    Context,
    /// A revision of the control plane.
    Revision,
    /// A tag of a revision.
    Tag,
    /// A kind of the mesh's objects.
    Kind,
    /// An object of the kind that the argument before names.
    Object,
    /// An object as KIND/NAME.NAMESPACE, or its kind.
    KindAndObject,
    /// What `describe` takes.
    Described,
    /// Nothing that has a list of names.
    Nothing,
}

/// A command line up to the cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// What is to be completed.
    pub(super) wanted: Wanted,
    /// What is written of it already.
    pub(super) written: String,
    /// Flags with a value that stand before, by clap's name for them.
    pub(super) flags: Vec<(String, String)>,
    /// Arguments of the command that stand before.
    pub(super) arguments: Vec<String>,
}

/// Looks at the words behind the name of the program; the last one is being written, perhaps empty.
pub(super) fn place(root: &mut Command, words: &[String]) -> Place {
    // Gives every command the flags that all have.
    root.build();
    let (written, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut command: &Command = root;
    let mut path = Vec::new();
    let mut place = Place {
        wanted: Wanted::Nothing,
        written: written.to_owned(),
        flags: Vec::new(),
        arguments: Vec::new(),
    };
    let mut expected: Option<&Arg> = None;
    for word in before {
        if let Some(arg) = expected.take() {
            place.flags.push((arg.get_id().to_string(), word.clone()));
        } else if word == "--" {
            // What follows is somebody else's command line.
            return place;
        } else if let Some((arg, value)) = flag(command, word) {
            match value {
                Some(value) => place.flags.push((arg.get_id().to_string(), value.to_owned())),
                None => expected = Some(arg),
            }
        } else if word.len() > 1 && word.starts_with('-') {
            // A flag without a value, or one that is not known.
        } else if let Some(sub) = command.find_subcommand(word).filter(|_| place.arguments.is_empty()) {
            path.push(sub.get_name());
            command = sub;
        } else {
            place.arguments.push(word.clone());
        }
    }
    place.wanted = match (expected, written.strip_prefix("--").and_then(|rest| rest.split_once('='))) {
        (Some(arg), _) => of_flag(arg.get_id().as_str()),
        // The shells complete a value that is written with = by themselves, or not at all.
        (None, Some(_)) => Wanted::Nothing,
        (None, None) if written.starts_with('-') || command.has_subcommands() => Wanted::Nothing,
        (None, None) => of_argument(&path, place.arguments.len()),
    };
    place
}

/// The flag that a word is, if it takes a value, and the value if the word holds it.
fn flag<'c, 'w>(command: &'c Command, word: &'w str) -> Option<(&'c Arg, Option<&'w str>)> {
    let takes_value = |arg: &&Arg| {
        arg.get_action().takes_values() && arg.get_num_args().is_none_or(|range| range.min_values() > 0)
    };
    let mut flags = command.get_arguments().filter(takes_value);
    if let Some(long) = word.strip_prefix("--") {
        let (long, value) = long.split_once('=').map_or((long, None), |(long, value)| (long, Some(value)));
        let is_named = |arg: &&Arg| {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
        };
        return Some((flags.find(is_named)?, value));
    }
    let mut letters = word.strip_prefix('-')?.char_indices();
    let (_, first) = letters.next()?;
    let arg = flags.find(|arg| arg.get_short() == Some(first))?;
    let value = letters.next().map(|(at, _)| word[1 + at..].trim_start_matches('='));
    Some((arg, value))
}

fn of_flag(id: &str) -> Wanted {
    match id {
        "namespace" | "istio_namespace" | "include" | "exclude" => Wanted::Namespace,
        "context" => Wanted::Context,
        "revision" => Wanted::Revision,
        "from" | "to" => Wanted::Workload,
        _ => Wanted::Nothing,
    }
}

fn of_argument(path: &[&str], position: usize) -> Wanted {
    match (path, position) {
        (["logs" | "down"], _)
        | (["exec" | "restart" | "proxy-status"], 0)
        | (["proxy-config", _] | ["x", "authz", "check"] | ["x", "denied" | "check-inject"], 0) => {
            Wanted::Workload
        }
        (["describe"] | ["x", "describe"], 0 | 1) => Wanted::Described,
        (["get" | "delete"], 0) => Wanted::Kind,
        (["get" | "delete"], _) => Wanted::Object,
        (["wait"], 0) => Wanted::KindAndObject,
        (["wait"], 1) => Wanted::Object,
        (["tag", "set" | "remove"], 0) => Wanted::Tag,
        _ => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    fn at(line: &str) -> Place {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        place(&mut Cli::command(), &words)
    }

    #[test]
    fn the_argument_at_the_cursor_is_known_whatever_stands_before() {
        for (line, wanted) in [
            ("logs ", Wanted::Workload),
            ("logs a.b c", Wanted::Workload),
            ("-n shop logs --tail 5 ", Wanted::Workload),
            ("pc cluster ", Wanted::Workload),
            ("proxy-config endpoint -o json web", Wanted::Workload),
            ("x authz check ", Wanted::Workload),
            ("experimental denied ", Wanted::Workload),
            ("get ", Wanted::Kind),
            ("get ap ", Wanted::Object),
            ("wait ap/", Wanted::KindAndObject),
            ("tag remove ", Wanted::Tag),
            ("describe svc ", Wanted::Described),
        ] {
            assert_eq!(at(line).wanted, wanted, "{line}");
        }
    }

    #[test]
    fn the_value_of_a_flag_is_no_argument() {
        for (line, wanted) in [
            ("logs -n ", Wanted::Namespace),
            ("logs --namespace sh", Wanted::Namespace),
            ("--context ", Wanted::Context),
            ("why --to ", Wanted::Workload),
            ("install --revision ", Wanted::Revision),
            ("apply -f ", Wanted::Nothing),
            ("logs --tail ", Wanted::Nothing),
        ] {
            assert_eq!(at(line).wanted, wanted, "{line}");
        }
        let place = at("logs -nshop --context=a x ");
        assert_eq!(
            place.flags,
            [("namespace".to_owned(), "shop".to_owned()), ("context".to_owned(), "a".to_owned())]
        );
        assert_eq!(place.arguments, ["x"]);
    }

    #[test]
    fn commands_flags_and_what_is_run_are_the_shells_to_complete() {
        for line in ["", "pro", "proxy-config ", "logs --fo", "exec web -- l", "exec web -- ", "nonsense "] {
            assert_eq!(at(line).wanted, Wanted::Nothing, "{line}");
        }
    }
}
