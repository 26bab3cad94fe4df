//! Programs that tasks need from the system: found, installed where that is possible, or named exactly.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::output;
use crate::process::{command, run};

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// Name of the program, or the path of a file that is looked for in one place only.
    pub(crate) program: &'static str,
    /// Debian and Ubuntu package.
    pub(crate) package: &'static str,
}

/// Interception and namespaces.
pub(crate) const NETWORK: [Tool; 2] =
    [Tool { program: "ip", package: "iproute2" }, Tool { program: "nft", package: "nftables" }];

/// Stock clients and servers that the tests of interoperability and of hostile peers use.
pub(crate) const STOCK: [Tool; 18] = [
    Tool { program: "curl", package: "curl" },
    Tool { program: "nghttp", package: "nghttp2-client" },
    Tool { program: "h2load", package: "nghttp2-client" },
    Tool { program: "nginx", package: "nginx-light" },
    Tool { program: "redis-server", package: "redis-server" },
    Tool { program: "redis-cli", package: "redis-tools" },
    Tool { program: "python3", package: "python3" },
    Tool { program: "tcpdump", package: "tcpdump" },
    Tool { program: "go", package: "golang-go" },
    Tool { program: "nghttpd", package: "nghttp2-server" },
    Tool { program: "mariadbd", package: "mariadb-server-core" },
    Tool { program: "mariadb", package: "mariadb-client-core" },
    Tool { program: "openssl", package: "openssl" },
    Tool { program: "nsenter", package: "util-linux" },
    Tool { program: "node", package: "nodejs" },
    Tool { program: "npm", package: "npm" },
    Tool { program: GRPC_OF_PYTHON, package: "python3-grpcio" },
    Tool { program: WEBSOCKETS_OF_PYTHON, package: "python3-websockets" },
];

/// Modules of the system's Python, which `/usr/bin/python3` finds there.
const GRPC_OF_PYTHON: &str = "/usr/lib/python3/dist-packages/grpc/__init__.py";
const WEBSOCKETS_OF_PYTHON: &str = "/usr/lib/python3/dist-packages/websockets/__init__.py";

/// What the documentation's commands use.
pub(crate) const DOCUMENTATION: [Tool; 2] =
    [Tool { program: "curl", package: "curl" }, Tool { program: "python3", package: "python3" }];

/// Peers and load generators of the benchmark.
pub(crate) const PEERS: [Tool; 8] = [
    Tool { program: "haproxy", package: "haproxy" },
    Tool { program: "nginx", package: "nginx-light" },
    Tool { program: NGINX_STREAM_MODULE, package: "libnginx-mod-stream" },
    Tool { program: "h2load", package: "nghttp2-client" },
    Tool { program: "nghttpd", package: "nghttp2-server" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "openssl", package: "openssl" },
    Tool { program: "python3", package: "python3-pip" },
];

/// The roots of public certificate authorities, which the control plane's image carries.
pub(crate) const PUBLIC_ROOTS: Tool = Tool { program: PUBLIC_ROOTS_FILE, package: "ca-certificates" };

/// Where Debian and Ubuntu keep them.
pub(crate) const PUBLIC_ROOTS_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Counts instructions and allocations.
pub(crate) const VALGRIND: Tool = Tool { program: "valgrind", package: "valgrind" };

/// What nginx needs to forward byte streams, where its package puts it.
pub(crate) const NGINX_STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Makes sure that every tool is there, installing by apt when this process is root and apt is there.
///
/// # Errors
/// When something is missing and cannot be installed; the message is the command to type.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let mut missing: Vec<&str> =
        tools.iter().filter(|tool| find(tool.program).is_none()).map(|tool| tool.package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !nix::unistd::geteuid().is_root() || find("apt-get").is_none() {
        bail!(
            "missing programs: install the packages `{packages}` (on Debian or Ubuntu: sudo apt-get install {packages})"
        );
    }
    output::note(&format!("installing {packages}"));
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    let apt = |arguments: &[&str]| {
        let mut apt = command("apt-get", arguments);
        apt.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::process::Stdio::null());
        // Packages of servers would start them; this policy of Debian's says not to.
        apt.env("RUNLEVEL", "1");
        run(&mut apt)
    };
    if apt(&install).is_err() {
        apt(&["update", "-qq"])?;
        apt(&install)?;
    }
    match tools.iter().find(|tool| find(tool.program).is_none()) {
        None => Ok(()),
        Some(tool) => bail!("{} is still missing after installing {}", tool.program, tool.package),
    }
}

/// Finds a program on PATH or in the folders of system administration.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| file.is_file())
}
