//! `cargo xtask size`

mod image;
mod measure;
mod stack;
mod way;

use anyhow::Result;

use crate::bare::TARGETS;

/// Options of the task.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    target: Vec<String>,
    #[arg(long)]
    by_function: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    for target in TARGETS.into_iter().filter(|target| {
        options.target.is_empty() || options.target.iter().any(|t| target.starts_with(t.as_str()))
    }) {
        let measured = measure::measure(target)?;
        println!("== {target}");
        for program in &measured.programs {
            println!("{} {} {:?}", program.name, program.bytes(), program.sections);
            if options.by_function {
                for (part, bytes) in program.parts.iter() {
                    println!("   {bytes:6} {part}");
                }
            }
        }
        println!("{:?}", measured.memory);
        let mut stacks = measured.stacks;
        stacks.sort_by_key(|(_, d)| std::cmp::Reverse(d.bytes));
        for (name, depth) in stacks.iter().take(if options.by_function { 300 } else { 25 }) {
            println!(
                "   {:6} {name}: {}",
                depth.bytes,
                depth
                    .way
                    .iter()
                    .map(|(n, f)| format!("{} {f}", measure::shown(n)))
                    .collect::<Vec<_>>()
                    .join(" > ")
            );
        }
    }
    Ok(())
}
