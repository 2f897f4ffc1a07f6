//! From a provider's answer to the bytes of an output: selection, context, rendering. Run with `cargo bench`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use elasticd::frontend::escape::Escape;
use elasticd::frontend::preset;
use elasticd::frontend::template::{Context, Template};
use elasticd::model::{Instance, PortRule, Selector, Service, ServiceSet, Snapshot, select};

const SIZES: [u16; 3] = [10, 1_000, 10_000];

fn service() -> Service {
    Service {
        select: Selector::of_tags([("Role", ["web"])]),
        port: PortRule::Tag { key: "Port".to_owned(), default: Some(8080) },
        ..Service::new("web".parse().expect("a name"), "prod".parse().expect("a name"))
    }
}

fn instances(count: u16) -> Vec<Instance> {
    let tag = |key: &str, value: String| (key.to_owned(), value);
    let instance = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let mut instance = Instance::new(format!("i-{n:017x}"));
        instance.private_ipv4 = Some([10, 0, high, low].into());
        instance.zone = Some("eu-west-1a".to_owned());
        instance.tags = [tag("Role", "web".into()), tag("Name", format!("web {n}")), tag("Env", "prod".into())].into();
        instance
    };
    (0..count).map(instance).collect()
}

fn pipeline(criterion: &mut Criterion) {
    let service = service();
    let vars = elasticd::config::preset("nginx").expect("built in").vars;
    let text = preset::template("nginx/upstreams.conf").expect("built in");
    let template = Template::compile("nginx/upstreams.conf", text, Escape::Nginx).expect("compiles");
    let names = [service.name.clone()];
    let mut group = criterion.benchmark_group("pipeline");
    for size in SIZES {
        let instances = instances(size);
        let backends =
            select(&service, &instances).members.into_iter().map(|member| member.backend).collect::<Vec<_>>();
        assert_eq!(backends.len(), usize::from(size));
        let set = Arc::new(ServiceSet { revision: 1, backends });
        let snapshot = Snapshot { revision: 1, services: [(service.name.clone(), set)].into() };
        let context = Context::new(&snapshot, &names, &vars);
        group.throughput(Throughput::Elements(size.into()));
        group.bench_with_input(BenchmarkId::new("select", size), &instances, |b, instances| {
            b.iter(|| select(&service, black_box(instances)));
        });
        group.bench_with_input(BenchmarkId::new("context", size), &snapshot, |b, snapshot| {
            b.iter(|| Context::new(black_box(snapshot), &names, &vars));
        });
        group.bench_with_input(BenchmarkId::new("render", size), &context, |b, context| {
            b.iter(|| template.render(black_box(context)).expect("renders"));
        });
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
