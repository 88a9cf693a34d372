"""Conversions of f16 as LLVM IR, for processors without the instructions: code generation calls them by these names.

Takes: nothing; the text fits every processor.
Gives: `HALF_IR`, one more unit to compile and link where kernels use f16, and the names that it defines.
Invariant: rounded once, to nearest, ties to even, denormal numbers included, as the instructions do it.
"""

HALF_FUNCTIONS = frozenset({"__extendhfsf2", "__truncsfhf2"})

HALF_IR = """; f16 from and to f32 for objects that link against nothing
define hidden float @__extendhfsf2(half %half) #0 {
  %short = bitcast half %half to i16
  %bits = zext i16 %short to i32
  %negative = and i32 %bits, 32768
  %sign = shl i32 %negative, 16
  %size = and i32 %bits, 32767
  %place = shl i32 %size, 13
  %scaled = bitcast i32 %place to float
  %value = fmul float %scaled, 0x46F0000000000000
  %finite = bitcast float %value to i32
  %beyond = or i32 %place, 2139095040
  %is_beyond = icmp uge i32 %size, 31744
  %chosen = select i1 %is_beyond, i32 %beyond, i32 %finite
  %signed = or i32 %chosen, %sign
  %result = bitcast i32 %signed to float
  ret float %result
}

define hidden half @__truncsfhf2(float %float) #0 {
  %bits = bitcast float %float to i32
  %top = lshr i32 %bits, 16
  %sign = and i32 %top, 32768
  %size = and i32 %bits, 2147483647
  %magnitude = bitcast i32 %size to float
  %half = lshr i32 %size, 13
  %odd = and i32 %half, 1
  %bias = add i32 %odd, 4095
  %raised = add i32 %size, %bias
  %shifted = lshr i32 %raised, 13
  %normal = sub i32 %shifted, 114688
  %lifted = fadd float %magnitude, 5.000000e-01
  %counted = bitcast float %lifted to i32
  %denormal = sub i32 %counted, 1056964608
  %is_denormal = icmp ult i32 %size, 947912704
  %rounded = select i1 %is_denormal, i32 %denormal, i32 %normal
  %is_large = icmp ugt i32 %size, 1199566848
  %finite = select i1 %is_large, i32 31744, i32 %rounded
  %payload = and i32 %half, 511
  %quiet = or i32 %payload, 32256
  %is_nan = icmp ugt i32 %size, 2139095040
  %chosen = select i1 %is_nan, i32 %quiet, i32 %finite
  %signed = or i32 %chosen, %sign
  %short = trunc i32 %signed to i16
  %result = bitcast i16 %short to half
  ret half %result
}

attributes #0 = { nounwind "no-builtins" "frame-pointer"="none" }
"""
