//! tfhe-ntt and concrete-ntt behind the line protocol of the benches; the argument says which.

use std::io::{BufRead, Write};
use std::time::Instant;

use aligned_vec::{AVec, ConstAlign};
use serde_json::{Value, json};

/// What both libraries' plans do.
struct Plan {
    forward: Box<dyn Fn(&mut [u64])>,
    /// With the factor 1/N.
    inverse: Box<dyn Fn(&mut [u64])>,
}

fn plan(library: &str, n: usize, q: u64) -> Option<Plan> {
    // Plans are kept in `Rc` because both directions use one.
    if library == "tfhe-ntt" {
        let plan = std::rc::Rc::new(tfhe_ntt::prime64::Plan::try_new(n, q)?);
        let forward = plan.clone();
        return Some(Plan {
            forward: Box::new(move |x| forward.fwd(x)),
            inverse: Box::new(move |x| {
                plan.inv(x);
                plan.normalize(x);
            }),
        });
    }
    let plan = std::rc::Rc::new(concrete_ntt::prime64::Plan::try_new(n, q)?);
    let forward = plan.clone();
    Some(Plan {
        forward: Box::new(move |x| forward.fwd(x)),
        inverse: Box::new(move |x| {
            plan.inv(x);
            plan.normalize(x);
        }),
    })
}

type Limb = AVec<u64, ConstAlign<64>>;

struct Limbs(Vec<(Plan, Limb)>);

impl Limbs {
    fn new(library: &str, n: usize, primes: &[u64]) -> Option<Self> {
        let limb = |q: u64| {
            let words = (0..n as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % q);
            Some((plan(library, n, q)?, AVec::from_iter(64, words)))
        };
        primes
            .iter()
            .map(|&q| limb(q))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// Milliseconds per limb of one direction, median of the repetitions; the other direction brings
    /// the data back, untimed.
    fn timed(&mut self, repeats: usize, inverse: bool) -> f64 {
        let mut times: Vec<f64> = (0..repeats)
            .map(|_| {
                let start = Instant::now();
                for (plan, limb) in &mut self.0 {
                    (if inverse {
                        &plan.inverse
                    } else {
                        &plan.forward
                    })(limb);
                }
                let spent = start.elapsed();
                for (plan, limb) in &mut self.0 {
                    (if inverse {
                        &plan.forward
                    } else {
                        &plan.inverse
                    })(limb);
                }
                spent.as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        0.5 * (times[(repeats - 1) / 2] + times[repeats / 2]) / self.0.len() as f64
    }
}

const OPS: [&str; 4] = [
    "ntt_forward",
    "ntt_inverse",
    "ntt_forward_swept",
    "ntt_inverse_swept",
];

fn answer(value: &Value) {
    println!("{value}");
    let _ = std::io::stdout().flush();
}

fn main() {
    let library = std::env::args().nth(1).unwrap_or_default();
    // By ring dimension: the primes are those of the last `setup`.
    let mut limbs: Option<(Limbs, Limbs)> = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.trim().splitn(2, ' ').collect();
        match words[..] {
            ["quit"] => return,
            ["setup", parameters] => {
                let p: Value = serde_json::from_str(parameters).unwrap_or_default();
                let list = |key: &str| p[key].as_array().cloned().unwrap_or_default();
                let primes: Vec<u64> = list("primes").iter().filter_map(Value::as_u64).collect();
                let n = 1usize << p["log_n"].as_u64().unwrap_or(0);
                let one = primes.get(1..2).unwrap_or(&primes);
                let made = Limbs::new(&library, n, one).zip(Limbs::new(&library, n, &primes));
                if made.is_none() {
                    answer(&json!({"error": "the library has no plan for these primes"}));
                    continue;
                }
                limbs = made;
                let known: Vec<Value> = list("ops")
                    .into_iter()
                    .filter(|op| op.as_str().is_some_and(|op| OPS.contains(&op)))
                    .collect();
                answer(&json!({"ops": known, "note": "transforms only, with the factor 1/N"}));
            }
            ["run", rest] => {
                let (op, repeats) = rest.split_once(' ').unwrap_or((rest, "1"));
                let repeats: usize = repeats.parse().unwrap_or(1).max(1);
                let Some(((one, all), _)) = limbs.as_mut().zip(OPS.contains(&op).then_some(()))
                else {
                    answer(&json!({"error": format!("no operation {op}, or no setup")}));
                    continue;
                };
                let limbs = if op.ends_with("swept") { all } else { one };
                answer(&json!({"ms": limbs.timed(repeats, op.starts_with("ntt_inverse"))}));
            }
            _ => answer(&json!({"error": format!("no command {line}")})),
        }
    }
}
