//! `meshctl completion`: the completion script of a shell.
//!
//! Commands and flags are in the script. Names of workloads, namespaces and objects are asked for at each key
//! press, by the function that is put in front of clap's own for bash, zsh and fish.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Outcome;
use crate::args::Cli;
use crate::output;

/// The function of clap's scripts for bash and zsh.
const FUNCTION: &str = "_meshctl() {";
/// What it is called when ours stands in front of it.
const RENAMED: &str = "_meshctl_commands_and_flags() {";

/// For bash. Where there are names they stand alone: flags come with the dash, and files would only be in the way.
const BASH: &str = r#"
_meshctl() {
    local name
    COMPREPLY=()
    while IFS= read -r name; do
        COMPREPLY+=("$name")
        [[ "$name" == */ ]] && compopt -o nospace 2>/dev/null
    done < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    (( ${#COMPREPLY[@]} )) || _meshctl_commands_and_flags "$@"
    return 0
}
"#;

/// For zsh. It stands before the end of clap's script, which runs the function when the script is autoloaded.
const ZSH: &str = r#"
_meshctl() {
    local -a names
    names=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    names=("${(@)names:#}")
    if (( ! ${#names} )); then
        _meshctl_commands_and_flags "$@"
        return
    fi
    if [[ "${names[1]}" == */ ]]; then
        compadd -S '' -- "${names[@]}"
    else
        compadd -- "${names[@]}"
    fi
}
"#;
/// Where the end of clap's script for zsh begins.
const ZSH_END: &str = "if [ \"$funcstack[1]\"";

/// For fish.
const FISH: &str = r#"
function __meshctl_names
    set -l words (commandline -opc)
    $words[1] __complete -- $words[2..] (commandline -ct) 2>/dev/null
end
complete -c meshctl -n 'not string match -q -- "-*" (commandline -ct)' -a '(__meshctl_names)'
complete -c meshctl -s n -l namespace -x -a '(__meshctl_names)'
complete -c meshctl -s i -l istio-namespace -x -a '(__meshctl_names)'
complete -c meshctl -l context -x -a '(__meshctl_names)'
complete -c meshctl -l revision -x -a '(__meshctl_names)'
complete -c meshctl -n '__fish_seen_subcommand_from why' -l to -x -a '(__meshctl_names)'
complete -c meshctl -n '__fish_seen_subcommand_from why' -l from -x -a '(__meshctl_names)'
"#;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// Never; the form is that of all commands.
pub(crate) fn run(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "meshctl", &mut script);
    output::line(with_names(args.shell, &String::from_utf8_lossy(&script)).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Clap's script with ours in front. One that is not of the form we know stays as it is.
fn with_names(shell: Shell, script: &str) -> String {
    let renamed = || script.replacen(FUNCTION, RENAMED, 1);
    match shell {
        Shell::Bash if script.contains(FUNCTION) => renamed() + BASH,
        Shell::Zsh if script.contains(FUNCTION) && script.contains(ZSH_END) => {
            renamed().replacen(ZSH_END, &format!("{}\n{ZSH_END}", ZSH.trim_start()), 1)
        }
        Shell::Fish => script.to_owned() + FISH,
        // Elvish, PowerShell and what clap may come to know: commands and flags.
        _ => script.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_bash_zsh_and_fish_ask_for_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "meshctl", &mut script);
            let text = with_names(shell, &String::from_utf8_lossy(&script));
            assert!(text.contains(" __complete -- "), "{shell}");
            assert!(text.matches("\n_meshctl() {").count() <= 1, "{shell}");
        }
    }
}
