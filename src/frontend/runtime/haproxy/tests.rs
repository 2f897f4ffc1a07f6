//! Differences between the outputs and HAProxy's answers, and what they lead to.

use super::*;

const INFO: &str = "Name: HAProxy\nPid: 7\nUptime_sec: 1\nStart_time_sec: 1";
const HEAD: &str = "1\n# be_id be_name …\n";

fn state(pool: &str, name: &str, address: &str, admin: u16, weight: u16) -> String {
    format!("3 {pool} 1 {name} {address} 2 {admin} {weight} 1 9 1 0 2 0 0 0 0 - 80 - 0 0 - - 0\n")
}

fn inspection(text: &str, servers: &str, known: Known) -> Inspection {
    let file = File::of([text], Inherited::default());
    let worker = Worker::parse(INFO, "# name\nweb\n", &format!("{HEAD}{servers}"), 0).expect("well formed");
    let digest = Digest::of(file.reload_only.as_bytes());
    let (earlier, overrides) = (Vec::new(), BTreeMap::new());
    let inherited = Ok(Inherited::default());
    Inspection {
        digest,
        file,
        worker,
        changed_at: 0,
        known,
        inherited,
        earlier,
        is_recorded: true,
        overrides,
        in_use: None,
    }
}

/// The same after these outputs were applied.
fn after(inspection: Inspection, earlier: &[&str]) -> Inspection {
    let earlier = earlier.iter().map(|text| File::of([*text], Inherited::default())).collect();
    Inspection { earlier, ..inspection }
}

fn one(name: &str, what: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), what.to_owned())].into()
}

fn commands(changes: &Changes) -> Vec<&str> {
    changes.commands.iter().map(|command| command.text.as_str()).collect()
}

#[test]
fn differences_become_commands_and_new_servers_come_first() {
    let file = "backend web\n server a 10.0.0.9:81 weight 5\n server new [::1]:80 weight 2 check inter 2s\n \
                server off 10.0.0.3:80 disabled\n server same 10.0.0.4:80\n server zero 10.0.0.5:80 weight 0\n";
    let servers = [
        state("web", "a", "10.0.0.1", 1, 1),
        state("web", "off", "10.0.0.3", 0, 1),
        state("web", "same", "10.0.0.4", 4, 1),
        state("web", "zero", "10.0.0.5", 8, 1),
        state("web", "gone", "10.0.0.6", 0, 1),
        state("web", "leaving", "10.0.0.7", 1, 1),
        state("other", "x", "10.0.0.8", 0, 1),
    ]
    .concat();
    let changes = inspection(file, &servers, Known::AsWanted).changes();
    assert_eq!(
        commands(&changes),
        [
            "set server web/a addr 10.0.0.9 port 81",
            "set server web/a weight 5",
            "set server web/a state ready",
            "add server web/new [::1]:80 weight 2 check inter 2s",
            "enable health web/new",
            "enable server web/new",
            "set server web/off state maint",
            "set server web/zero weight 0%",
            "set server web/zero state ready",
            "set server web/gone state maint",
        ]
    );
    assert_eq!(changes.deletions, ["del server web/gone", "del server web/leaving"]);
    assert_eq!(changes.reload, None);
}

#[test]
fn changes_that_no_command_can_make_need_a_reload() {
    let reload = |file: &str| inspection(file, "", Known::AsWanted).changes().reload.expect("a reason");
    assert!(reload("backend new\n").contains("no backend \"new\""));
    assert!(reload("backend web\n server a example.com:80\n").contains("web/a"));
    assert!(reload("backend web\n server a 10.0.0.1:80 sni str(a;b)\n").contains("cannot be added at run time"));
}

#[test]
fn changed_options_of_a_server_are_recognised_from_the_record() {
    let with = |a: &str, b: &str| format!("backend web\n server a 10.0.0.1:80 {a}\n server b 10.0.0.2:80 {b}\n");
    let servers = state("web", "a", "10.0.0.1", 0, 1) + &state("web", "b", "10.0.0.2", 0, 1);
    let known = |a: &str, b: &str| {
        let proven = inspection(&with(a, b), &servers, Known::AsWanted);
        let record = WorkerRecord::parse(&proven.evidence(BTreeMap::new()).identity.expect("a record"));
        Known::Options(record.expect("as written").options)
    };
    let needs_reload = |known, a: &str, b: &str| inspection(&with(a, b), &servers, known).changes().reload.is_some();
    for (a, b) in [("", ""), ("backup", ""), ("check", "check")] {
        assert!(!needs_reload(known(a, b), a, b), "{a} {b}");
    }
    assert!(needs_reload(known("", ""), "backup", ""));
    assert!(needs_reload(known("backup", ""), "", "backup"), "exchanged");
    // Only `a` is in the file, while `b` still runs.
    let only_a = inspection("backend web\n server a 10.0.0.1:80 backup\n", &servers, known("backup", ""));
    let after = OptionFingerprints::of(&only_a.file, &only_a.worker, &only_a.known);
    assert!(needs_reload(Known::Options(after), "backup", "backup"), "b still runs without the option");
}

#[test]
fn a_server_that_was_added_since_the_proof_has_the_options_it_was_added_with() {
    let both = "backend web\n server a 10.0.0.1:80 maxconn 50\n server c 10.0.0.3:80 maxconn 5\n";
    let only_a = "backend web\n server a 10.0.0.1:80 maxconn 50\n";
    let servers = state("web", "a", "10.0.0.1", 0, 1) + &state("web", "c", "10.0.0.3", 0, 1);
    let proven = inspection(only_a, &state("web", "a", "10.0.0.1", 0, 1), Known::AsWanted);
    let known = || {
        let record = proven.evidence(BTreeMap::new()).identity.expect("a record");
        Known::Options(WorkerRecord::parse(&record).expect("as written").options)
    };
    assert_eq!(after(inspection(both, &servers, known()), &[only_a]).changes().reload, None);
    let reload = inspection(both, &servers, known()).changes().reload;
    assert!(reload.is_some(), "without what was applied before, nothing shows that it is new");
    // It leaves, and before it is deleted it comes back with other options.
    let left = after(inspection(only_a, &servers, known()), &[both]);
    let record = OptionFingerprints::of(&left.file, &left.worker, &left.known).to_string();
    let known = Known::Options(WorkerRecord::parse(&format!("7@1 0{record}")).expect("as written").options);
    let other = both.replace("maxconn 5\n", "maxconn 6\n");
    assert!(after(inspection(&other, &servers, known), &[only_a]).changes().reload.is_some(), "{record}");
}

#[test]
fn what_others_change_is_left_alone_and_named() {
    let file = "backend web\n server a 10.0.0.1:80 check agent-check agent-port 9\n";
    let with = |admin, weight, check: u16, agent: u16| {
        format!("3 web 1 a 10.0.0.1 2 {admin} {weight} 1 9 1 0 2 {check} {agent} 0 0 - 80 - 0 0 - - 0\n")
    };
    for (state, what, command) in [
        (with(1, 1, 6, 22), "maintenance", "set server web/a state ready"),
        (with(8, 1, 6, 22), "drain", "set server web/a state ready"),
        (with(0, 7, 6, 22), "weight 7", "set server web/a weight 100%"),
        (with(0, 1, 2, 22), "no health checks", "enable health web/a"),
        (with(0, 1, 6, 18), "no agent checks", "enable agent web/a"),
    ] {
        let unknown = inspection(file, &state, Known::AsWanted).changes();
        assert_eq!(commands(&unknown), [command], "nothing tells whose it is");
        let theirs = after(
            inspection(file, &state, Known::AsWanted),
            &[file, "backend web\n server a 10.0.0.9:80 check agent-check"],
        );
        let changes = theirs.changes();
        assert_eq!((commands(&changes), &changes.overrides), (vec![], &one("web/a", what)));
        let own = after(inspection(file, &state, Known::AsWanted), &[file, "backend web\n"]);
        assert_eq!(commands(&own.changes()), [command], "elasticd itself has changed it since");
        // A worker that was started since may have restored what was elasticd's own.
        let other = Inspection { is_recorded: false, ..theirs };
        assert_eq!(commands(&other.changes()), [command]);
        let found = Inspection { overrides: changes.overrides, ..other };
        assert_eq!((commands(&found.changes()), found.changes().overrides), (vec![], one("web/a", what)));
    }
    let both = after(inspection(file, &with(1, 7, 6, 22), Known::AsWanted), &[file]).changes();
    assert_eq!(both.overrides, one("web/a", "weight 7, maintenance"));
}

#[test]
fn a_weight_of_others_stays_until_there_should_be_no_traffic() {
    let file = |weight: u16| format!("backend web\n server a 10.0.0.1:80 weight {weight}\n");
    let changes = |running, before, wanted| {
        let state = state("web", "a", "10.0.0.1", 0, running);
        after(inspection(&file(wanted), &state, Known::AsWanted), &[&file(before)]).changes()
    };
    assert_eq!(commands(&changes(2, 2, 3)), ["set server web/a weight 3"], "elasticd's own");
    assert_eq!(changes(7, 2, 3).overrides, one("web/a", "weight 7"));
    assert_eq!(commands(&changes(7, 2, 0)), ["set server web/a weight 0%"]);
    assert!(changes(3, 2, 3).overrides.is_empty(), "it was given back");
}

#[test]
fn a_part_of_a_change_takes_no_address_out_that_is_wanted() {
    let servers = [
        state("web", "a", "10.0.0.1", 0, 1),
        state("web", "gone", "10.0.0.2", 0, 1),
        state("web", "forgotten", "10.0.0.3", 0, 1),
        state("empty", "b", "10.0.0.4", 0, 1),
        state("missing", "c", "10.0.0.5", 0, 1),
    ]
    .concat();
    let before = "backend web\nbackend empty\n server b 10.0.0.4:80\nbackend missing\n server c 10.0.0.5:80\n";
    let in_use =
        ["10.0.0.1:80", "10.0.0.3:80", "10.0.0.5:80"].map(|address| address.parse().expect("an address")).into();
    let mut part = after(inspection("backend web\n server a 10.0.0.1:80\n", &servers, Known::Nothing), &[before]);
    part.in_use = Some(in_use);
    let changes = part.changes();
    assert_eq!(commands(&changes), ["set server web/gone state maint", "set server empty/b state maint"]);
    assert_eq!(changes.deletions, ["del server web/gone"]);
}

#[test]
fn an_id_is_compared_where_the_line_has_one() {
    let with = |id: &str| {
        inspection(
            &format!("backend web\n server a 10.0.0.1:80{id}\n"),
            &state("web", "a", "10.0.0.1", 0, 1),
            Known::AsWanted,
        )
        .changes()
        .reload
    };
    assert_eq!((with(""), with(" id 1")), (None, None));
    assert!(with(" id 2").expect("a reason").contains("another id"));
}

#[test]
fn options_that_are_not_known_keep_a_server_from_being_added() {
    let mut inspection = inspection("backend web\n server a 10.0.0.1:80\n", "", Known::AsWanted);
    inspection.inherited = Err("/etc/haproxy/haproxy.cfg was changed".to_owned());
    let changes = inspection.changes();
    assert!(changes.reload.expect("a reason").contains("haproxy.cfg was changed") && changes.commands.is_empty());
}

#[test]
fn a_server_that_was_added_is_compared_with_its_siblings() {
    let file = "backend web\n server a 10.0.0.1:80\n server b 10.0.0.2:80\n server c 10.0.0.3:80 backup\n";
    let with = |name: &str, check: u16, ssl: u16| {
        format!("3 web 1 {name} 10.0.0.1 2 0 1 1 9 1 0 2 {check} 0 0 0 - 80 - {ssl} 0 - - 0\n")
    };
    for (check, ssl, is_odd) in [(0, 0, false), (6, 0, true), (0, 1, true)] {
        let siblings = with("a", check, ssl) + &with("c", 6, 1);
        let before = inspection(file, &siblings, Known::AsWanted);
        let now = inspection(file, &(siblings + &with("b", 0, 0)), Known::AsWanted).worker;
        let odd = before.changes().odd_among_siblings(&before.worker, &now, &before.file);
        assert_eq!(odd.is_some_and(|odd| odd.contains("web/a has options")), is_odd);
    }
}

#[test]
fn a_worker_that_started_before_the_change_is_known_by_its_record_alone() {
    let file = "backend web\n balance first\n";
    let inspection = inspection(file, "", Known::Nothing);
    assert!(inspection.unproven().expect("not known").contains("worker 7"));
    assert!(!inspection.worker.has_started_after(1));
    assert_eq!(inspection.evidence(BTreeMap::new()).digest, Some(Digest::of(inspection.file.reload_only.as_bytes())));
}

#[test]
fn malformed_answers_are_not_taken_for_agreement() {
    assert!(Worker::parse("", "", HEAD, 0).is_none());
    assert!(Worker::parse(INFO, "", "Permission denied", 0).is_none());
    assert!(Worker::parse(INFO, "web", &format!("{HEAD}3 web 1 a"), 0).is_none());
}
