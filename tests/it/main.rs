//! The integration tests, in one binary: the real program, real frontends, and clouds that others and we have faked.

mod api;
mod bad_input;
mod cli;
mod cloud;
mod crash;
mod ec2_endpoint;
mod harness;
mod house;
mod moto;
mod nginx;
mod nginx_syntax;
mod provider_ec2;
mod provider_ec2_chain;
