//! One host by itself, for programs that talk over its loopback interface.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::artifact::{Artifacts, Profile};
use crate::error::{Doing, LabError};
use crate::ground::Ground;
use crate::namespace::Namespace;
use crate::view::{self, Connection};

/// A namespace in which `lo` is up and nothing else is, with no daemon. All of it goes away when dropped.
#[derive(Debug)]
pub struct Neighbourhood {
    namespace: Namespace,
    artifacts: Artifacts,
    // Last: the next lab may begin when all else is gone.
    ground: Ground,
}

impl Neighbourhood {
    /// A new host.
    pub fn new(profile: Profile) -> Result<Self, LabError> {
        let ground = Ground::take(profile)?;
        let built = Artifacts::find(profile)?;
        // The programs may run as somebody who can go neither here nor there, unlike root.
        let library = ground.dir().join("libunderpass.so");
        std::fs::copy(&built.library, &library).doing("copy the library")?;
        for path in [ground.dir(), &library] {
            std::fs::set_permissions(path, Permissions::from_mode(0o755)).doing(path.display())?;
        }
        let namespace = Namespace::create(ground.number(), "lo")?;
        Ok(Self { namespace, artifacts: Artifacts { library, ..built }, ground })
    }

    /// The host's namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A directory for the files of this host.
    pub fn dir(&self) -> &Path {
        self.ground.dir()
    }

    /// A plain command.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command, LabError> {
        self.namespace.command(program)
    }

    /// A command with the library preloaded, which has nothing but the `shm` lane.
    pub fn preloaded(&self, program: impl AsRef<OsStr>) -> Result<Command, LabError> {
        let mut command = self.command(program)?;
        self.artifacts.preload(&mut command, &self.dir().join("no-daemon.sock"));
        command.env("UNDERPASS_LANES", "shm");
        Ok(command)
    }

    /// All sockets of all preloaded processes on this host, children included (`underpass ss`).
    pub fn connections(&self) -> Result<Vec<Connection>, LabError> {
        let here =
            std::fs::metadata(Path::new("/run/netns").join(self.namespace.name())).doing("look at the namespace")?;
        // A process that has ended since is nowhere.
        let lives_here = |pid: u32| {
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|its| (its.dev(), its.ino()) == (here.dev(), here.ino()))
        };
        let mut all = view::connections(&self.artifacts.command)?;
        all.retain(|connection| lives_here(connection.pid));
        Ok(all)
    }
}
