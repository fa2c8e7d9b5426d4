//! The real gateway, for tests of the whole way.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::{Bus, SECRET};

/// The gateway's binary: the one that BELLWIRE_GATEWAY names, or built now. It is another package's, so cargo does not
/// do it for us.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os("BELLWIRE_GATEWAY") {
            return built.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--package", "bellwire-gateway", "--bin", "bellwire-gateway"]);
        // The profile that we were built with ourselves.
        let ours = Path::new(env!("CARGO_BIN_EXE_bellwirectl"));
        if ours.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        ours.with_file_name("bellwire-gateway")
    })
}

/// A gateway on a bus, with a journal and an address that outlive it.
pub(crate) struct Gateway {
    pub(crate) process: Child,
    pub(crate) url: String,
}

/// What stays when a gateway is killed.
pub(crate) struct Site {
    pub(crate) bus: Bus,
    pub(crate) dir: PathBuf,
    pub(crate) address: String,
    /// Of its admin listener.
    pub(crate) admin: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        let bus = Bus::new();
        let dir = std::env::temp_dir().join(format!("bellwirectl-gateway-{}", bus.0));
        fs::create_dir_all(&dir).unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { bus, dir, address: free(), admin: free() }
    }

    /// Where its gateway's control socket is.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    pub(crate) fn start(&self) -> Gateway {
        let mut process = Command::new(binary())
            .arg("--dev")
            .env_clear()
            .env("BELLWIRE_BUS_NAME", &self.bus.0)
            .env("BELLWIRE_JOURNAL_DIR", self.dir.join("journal"))
            .env("BELLWIRE_JOURNAL_SEGMENT_BYTES", (4 << 20).to_string())
            .env("BELLWIRE_LISTEN_ADDRESS", &self.address)
            .env("BELLWIRE_ADMIN_ADDRESS", &self.admin)
            .env("BELLWIRE_TOKEN_KEY", SECRET)
            .env("BELLWIRE_CONTROL_SOCKET", self.control())
            .env("TMPDIR", &self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url =
            lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("listening ")?.to_owned()));
        let url = url.unwrap_or_else(|| panic!("{}", fs::read_to_string(self.dir.join("log")).unwrap()));
        Gateway { process, url }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
