//! The integration tests, in one binary: the real program, real frontends, and clouds that others and we have faked.

mod admin;
mod apache;
mod apache_syntax;
mod api;
mod api_live;
mod api_slow;
mod architecture;
mod bad_input;
mod caddy;
mod caddy_syntax;
mod child_programs;
mod cli;
#[cfg(feature = "ec2")]
mod cloud;
mod confine;
mod conformance;
mod container;
mod crash;
mod doctor;
#[cfg(feature = "ec2")]
mod doctor_ec2;
#[cfg(feature = "ec2")]
mod ec2_endpoint;
#[cfg(feature = "ec2")]
mod ec2_events;
mod envoy;
mod envoy_asks;
#[cfg(feature = "nats")]
mod fleet;
#[cfg(feature = "nats")]
mod fleet_access;
mod formats;
mod haproxy;
mod haproxy_others;
mod haproxy_syntax;
mod harness;
mod health;
mod hostile_user;
mod isolated;
#[cfg(feature = "ec2")]
mod moto;
mod nginx;
mod nginx_asks;
mod nginx_syntax;
mod openapi;
mod other_hands;
mod outputs;
mod pid_namespace;
mod plain;
mod processes;
mod prometheus;
#[cfg(feature = "ec2")]
mod provider_ec2;
#[cfg(feature = "ec2")]
mod provider_ec2_chain;
#[cfg(feature = "ec2")]
mod provider_ec2_faults;
#[cfg(feature = "ec2")]
mod provider_ec2_gentle;
#[cfg(feature = "ec2")]
mod provider_ec2_traffic;
mod provider_exec;
mod provider_http;
mod schema;
mod services;
mod socket_activation;
#[cfg(feature = "ec2")]
mod sqs;
#[cfg(feature = "ec2")]
mod sqs_endpoint;
mod templates;
mod traefik;
mod varnish;
mod varnish_syntax;
