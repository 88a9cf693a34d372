"""The processor and feature names that we let LLVM see.

Takes: an architecture, a processor name, feature strings such as `+avx512f`.
Gives: `check_names`, which raises `CompileError` with the nearest known name.
Invariant: the tables hold only names that LLVM 22 knows, for 64-bit processors; LLVM itself ignores an unknown name
with a note on stderr, or ends the process when the processor has no 64-bit mode. A test compares them with LLVM's own.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from tessera_build.backends.llvm.errors import CompileError

_X86_64_PROCESSORS = """
alderlake amdfam10 arrowlake arrowlake-s athlon-fx athlon64 athlon64-sse3 atom barcelona bdver1 bdver2 bdver3
bdver4 bonnell broadwell btver1 btver2 cannonlake cascadelake clearwaterforest cooperlake core-avx-i core-avx2
core2 corei7 corei7-avx diamondrapids emeraldrapids generic goldmont goldmont-plus gracemont grandridge
graniterapids graniterapids-d haswell icelake-client icelake-server ivybridge k8 k8-sse3 knl knm lunarlake
meteorlake nehalem nocona novalake opteron opteron-sse3 pantherlake penryn raptorlake rocketlake sandybridge
sapphirerapids sierraforest silvermont skx skylake skylake-avx512 slm tigerlake tremont westmere wildcatlake
x86-64 x86-64-v2 x86-64-v3 x86-64-v4 znver1 znver2 znver3 znver4 znver5
"""
_X86_64_FEATURES = """
adx aes amx-avx512 amx-bf16 amx-complex amx-fp16 amx-fp8 amx-int8 amx-movrs amx-tf32 amx-tile avx avx10.1
avx10.1-512 avx10.2 avx10.2-512 avx2 avx512bf16 avx512bitalg avx512bw avx512cd avx512dq avx512f avx512fp16
avx512ifma avx512vbmi avx512vbmi2 avx512vl avx512vnni avx512vp2intersect avx512vpopcntdq avxifma avxneconvert
avxvnni avxvnniint16 avxvnniint8 bmi bmi2 ccmp cf cldemote clflushopt clwb clzero cmov cmpccxadd crc32 cx16 cx8
egpr enqcmd ermsb f16c fma fma4 fsgsbase fsrm fxsr gfni hreset invpcid kl lwp lzcnt mmx movbe movdir64b movdiri
movrs mwaitx ndd nf nopl pclmul pconfig pku popcnt ppx prefer-128-bit prefer-256-bit prefetchi prfchw ptwrite
push2pop2 raoint rdpid rdpru rdrnd rdseed rtm sahf serialize sgx sha sha512 shstk sm3 sm4 sse sse2 sse3 sse4.1
sse4.2 sse4a ssse3 tbm tsxldtrk uintr usermsr vaes vpclmulqdq vzeroupper waitpkg wbnoinvd widekl x87 xop xsave
xsavec xsaveopt xsaves zu
"""
_AARCH64_PROCESSORS = """
a64fx ampere1 ampere1a ampere1b ampere1c apple-a10 apple-a11 apple-a12 apple-a13 apple-a14 apple-a15 apple-a16
apple-a17 apple-a18 apple-a19 apple-a7 apple-a8 apple-a9 apple-m1 apple-m2 apple-m3 apple-m4 apple-m5 apple-s10
apple-s4 apple-s5 apple-s6 apple-s7 apple-s8 apple-s9 c1-nano c1-premium c1-pro c1-ultra carmel cobalt-100
cortex-a320 cortex-a34 cortex-a35 cortex-a510 cortex-a520 cortex-a520ae cortex-a53 cortex-a55 cortex-a57
cortex-a65 cortex-a65ae cortex-a710 cortex-a715 cortex-a72 cortex-a720 cortex-a720ae cortex-a725 cortex-a73
cortex-a75 cortex-a76 cortex-a76ae cortex-a77 cortex-a78 cortex-a78ae cortex-a78c cortex-r82 cortex-r82ae
cortex-x1 cortex-x1c cortex-x2 cortex-x3 cortex-x4 cortex-x925 cyclone exynos-m3 exynos-m4 exynos-m5 falkor
fujitsu-monaka gb10 generic grace kryo neoverse-512tvb neoverse-e1 neoverse-n1 neoverse-n2 neoverse-n3 neoverse-v1
neoverse-v2 neoverse-v3 neoverse-v3ae olympus oryon-1 saphira thunderx thunderx2t99 thunderx3t110 thunderxt81
thunderxt83 thunderxt88 tsv110
"""
_AARCH64_FEATURES = """
aes altnzcv am amvs bf16 brbe bti btie ccdp ccidx ccpp chk clrbhb cmh cmpbr complxnum cpa crc crypto cssc d128 dit
dotprod ecv ete f16f32dot f16f32mm f16mm f32mm f64mm f8f16mm f8f32mm faminmax fgt flagm fmv fp-armv8 fp16fml fp8
fp8dot2 fp8dot4 fp8fma fpac fprcvt fptoint fullfp16 gcie gcs hbc hcx i8mm ite jsconv lor ls64 lscp lse lse128 lse2
lsfe lsui lut mec mops mops-go mpam mpamv2 mte mtetc neon nmi nv occmo pan pan-rwv pauth pauth-lr pcdphint perfmon
poe2 pops predres rand ras rasv2 rcpc rcpc-immo rcpc3 rdm rme sb sel2 sha2 sha3 sm4 sme sme-b16b16 sme-f16f16
sme-f64f64 sme-f8f16 sme-f8f32 sme-fa64 sme-i16i64 sme-lutv2 sme-mop4 sme-tmop sme2 sme2p1 sme2p2 sme2p3 spe
spe-eef specres2 specrestrict ssbs ssve-aes ssve-bitperm ssve-fexpa ssve-fp8dot2 ssve-fp8dot4 ssve-fp8fma
strict-align sve sve-aes sve-aes2 sve-b16b16 sve-b16mm sve-bfscale sve-bitperm sve-f16f32mm sve-sha3 sve-sm4 sve2
sve2-aes sve2-bitperm sve2-sha3 sve2-sm4 sve2p1 sve2p2 sve2p3 tev the tlb-rmi tlbid tlbiw trbe uaops v8.1a v8.2a
v8.3a v8.4a v8.5a v8.6a v8.7a v8.8a v8.9a v8a v8r v9.1a v9.2a v9.3a v9.4a v9.5a v9.6a v9.7a v9a vh wfxt xs
"""


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What one architecture may be asked for."""

    processors: frozenset[str]
    features: frozenset[str]


KNOWN = {
    "x86_64": KnownNames(frozenset(_X86_64_PROCESSORS.split()), frozenset(_X86_64_FEATURES.split())),
    "aarch64": KnownNames(frozenset(_AARCH64_PROCESSORS.split()), frozenset(_AARCH64_FEATURES.split())),
}


def check_names(architecture: str, processor: str, features: Iterable[str]) -> None:
    """Refuse what LLVM would ignore or die of, naming all unknown words at once."""
    known = KNOWN.get(architecture)
    if known is None:
        raise CompileError("unknown architecture", expected=", ".join(sorted(KNOWN)), found=architecture)
    faults: list[str] = []
    if processor not in known.processors:
        faults.append(f"processor `{processor}`{_suggestion(processor, known.processors)}")
    for feature in features:
        if feature[:1] not in ("+", "-"):
            faults.append(f"feature `{feature}` (write +{feature} or -{feature})")
        elif feature[1:] not in known.features:
            faults.append(f"feature `{feature}`{_suggestion(feature[1:], known.features)}")
    if faults:
        raise CompileError(f"names that {architecture} code generation does not know", found="; ".join(faults))


def _suggestion(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean `{nearest[0]}`?)" if nearest else ""
