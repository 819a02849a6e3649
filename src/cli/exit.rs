//! What flowctl's exit status means: the contract with scripts and service managers.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Ok,
    /// Not done; the message says why.
    Failure,
    /// `status --check`: a threshold is pending, or something makes numbers wrong.
    Warning,
    /// `status --check`: a threshold fires.
    Firing,
    /// The daemon does not run, does not answer, or may not be asked by this user.
    NotReachable,
    /// The command line is not understood.
    Usage,
    /// Another daemon holds this network namespace.
    AnotherInstance,
    /// A privilege is missing; the message says which.
    MissingPrivilege,
    /// The configuration is missing or has problems.
    BadConfiguration,
}

impl ExitCode {
    /// The number the process exits with.
    pub fn code(self) -> u8 {
        match self {
            ExitCode::Ok => 0,
            ExitCode::Failure | ExitCode::Warning => 1,
            ExitCode::Firing => 2,
            ExitCode::NotReachable => 3,
            ExitCode::Usage => 64,
            ExitCode::AnotherInstance => 75,
            ExitCode::MissingPrivilege => 77,
            ExitCode::BadConfiguration => 78,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> std::process::ExitCode {
        code.code().into()
    }
}
