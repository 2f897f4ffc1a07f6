//! Machines as clouds have them.

use crate::ec2_endpoint::Machine;

/// As much as EC2 tells of a machine that elasticd reads, and as many tags as machines have.
pub fn machine(n: u32, role: &str) -> Machine {
    let name = format!("web-{n}.eu-west-1.example.com");
    let tags = [
        ("Role", role),
        ("Name", &*name),
        ("Env", "prod"),
        ("Team", "payments"),
        ("CostCenter", "4711-eu"),
        ("Port", "8080"),
        ("ManagedBy", "terraform"),
        ("Repository", "https://git.example.com/infrastructure/fleet"),
    ];
    Machine {
        public_ip: Some("203.0.113.7".to_owned()),
        vpc: Some("vpc-0123456789abcdef0".to_owned()),
        subnet: Some(format!("subnet-0123456789abcdef{}", n % 3)),
        kind: Some("m7g.large".to_owned()),
        ..Machine::numbered(n, &tags)
    }
}
