//! Who may ask the service, and who may command it: members of its group ask, root commands.

use std::process::Output;

use crate::router::{CONFIG, Place, Router, said, scenes};

scenes!(
    members_of_the_group_may_ask_and_others_are_told_who_may,
    members_of_the_group_may_not_command,
);

impl Router {
    /// With a user who is in the group and one who is in none.
    fn start_with_users(place: Place) -> Option<Router> {
        let router = Router::start(place, CONFIG)?;
        for arguments in [&["--groups", "flowctl", "member"][..], &["stranger"]] {
            let output = router.machine.run(&[&["useradd"], arguments].concat());
            assert!(output.status.success(), "{}", said(&output));
        }
        Some(router)
    }

    /// Runs a program as that user, with these capabilities.
    fn run_as(&self, user: &str, capabilities: &str, program: &[&str]) -> Output {
        let user = format!("--property=User={user}");
        let capabilities = format!("--property=AmbientCapabilities={capabilities}");
        let run = [
            "systemd-run",
            "--quiet",
            "--wait",
            "--pipe",
            &user,
            &capabilities,
        ];
        self.machine.run(&[&run, program].concat())
    }
}

fn members_of_the_group_may_ask_and_others_are_told_who_may(place: Place) {
    let Some(router) = Router::start_with_users(place) else {
        return;
    };
    let asked = router.run_as("member", "", &["flowctl", "status"]);
    assert!(asked.status.success(), "{}", said(&asked));
    assert!(said(&asked).contains("home_from"), "{}", said(&asked));
    let refused = router.run_as("stranger", "", &["flowctl", "status"]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    let wanted = "permission denied: this needs root or the group flowctl";
    assert!(said(&refused).contains(wanted), "{}", said(&refused));
}

fn members_of_the_group_may_not_command(place: Place) {
    let Some(router) = Router::start_with_users(place) else {
        return;
    };
    let pid = router.shown("MainPID");
    let handle = router.handle();
    let reload = router.run_as("member", "", &["flowctl", "reload"]);
    assert!(!reload.status.success());
    assert!(said(&reload).contains("root"), "{}", said(&reload));
    // With the kernel's leave to take the table away, so that the service is asked to stop.
    let remove = router.run_as("member", "CAP_NET_ADMIN", &["flowctl", "remove"]);
    assert!(!remove.status.success());
    assert!(said(&remove).contains("refused stop"), "{}", said(&remove));
    assert_eq!(router.shown("ActiveState"), "active");
    assert_eq!((router.shown("MainPID"), router.handle()), (pid, handle));
    assert!(!router.journal().contains("config"), "{}", router.journal());
}
