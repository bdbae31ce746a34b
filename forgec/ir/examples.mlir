forge.symbol @s0 "seq" min 1 max 2048

forge.symbol @s1 "batch" min 0

forge.symbol @s0 "seq" min 1
forge.constraint s0 "le" 512

forge.param @layers.0.weight : tensor<576x192xf32>

forge.param @weight : tensor<8x4xf32>
func.func @forward() -> tensor<8x4xf32> {
  %w = forge.param_ref @weight : tensor<8x4xf32>
  func.return %w : tensor<8x4xf32>
}

forge.constant dense<[0, 1, 2]> : tensor<3xi64>

forge.constant dense<[1.000000e+00, -0.000000e+00]> : tensor<2xf32>

func.func @forward(%cache: !forge.state<tensor<4xf32>>, %x: tensor<4xf32>) -> !forge.state<tensor<4xf32>> {
  %old = forge.state_read %cache : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  %new = forge.add %old, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %next = forge.state_write %cache, %new : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %next : !forge.state<tensor<4xf32>>
}

%v, %i = forge.aten "aten::topk"(%x, 2, -1, largest = true) :
    (tensor<4x8xf32>) -> (tensor<4x2xf32>, tensor<4x2xi64>)

%r = forge.aten "aten::fill_diagonal_"(%x, 2.0) updates : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.aten "aten::roll"(%x, [expr<s0>, 1], [0, 1]) :
    (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>

%r = forge.full 0.5 : tensor<?x4xf32, #forge.tensor<[s0 + 1]>>

%r = forge.full true : tensor<2xi1>

%r = forge.iota from 0 step 1 : tensor<?xi64, #forge.tensor<[s0]>>

%r = forge.iota from s0 * 2 step 3 : tensor<5xi64>

%r = forge.neg %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.abs %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.sign %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.exp %x : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>

%r = forge.exp %x : (tensor<4xi64>) -> tensor<4xf32>

%r = forge.exp2 %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.expm1 %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.log %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.log2 %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.log10 %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.log1p %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.sqrt %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.rsqrt %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.reciprocal %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.sin %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.cos %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.tan %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.asin %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.acos %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.atan %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.sinh %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.cosh %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.tanh %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.erf %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.erfc %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.sigmoid %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.silu %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.relu %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.gelu %x approximate "tanh" : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.floor %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.ceil %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.round %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.trunc %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.logical_not %x : (tensor<4x8xf32>) -> tensor<4x8xi1>

%r = forge.bitwise_not %x : (tensor<4x8xi64>) -> tensor<4x8xi64>

%r = forge.isnan %x : (tensor<4x8xf32>) -> tensor<4x8xi1>

%r = forge.cast %x : (tensor<4x8xf32>) -> tensor<4x8xbf16>

%r = forge.clamp %x lower -1.0 upper 1.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.clamp %x upper 3 : (tensor<4x8xi64>) -> tensor<4x8xi64>

%r = forge.add %x, %y : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>

%r = forge.sub %x, %y : (tensor<4x1xf32>, tensor<8xf32>) -> tensor<4x8xf32>

%r = forge.rsub %x, 1.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.mul %x, 0.125 : (tensor<4x8xbf16>) -> tensor<4x8xbf16>

%r = forge.mul %x, %y :
    (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<?x1xf32, #forge.tensor<[s0]>>)
    -> tensor<?x8xf32, #forge.tensor<[s0]>>

%r = forge.div %x, 2 : (tensor<4xi64>) -> tensor<4xf32>

%r = forge.floor_div %x, 2 : (tensor<4xi64>) -> tensor<4xi64>

%r = forge.remainder %x, -3 : (tensor<4xi64>) -> tensor<4xi64>

%r = forge.fmod %x, -3 : (tensor<4xi64>) -> tensor<4xi64>

%r = forge.pow %x, 2.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.maximum %x, %y : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.minimum %x, %y : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.eq %x, %y : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi1>

%r = forge.ne %x, -inf : (tensor<4xf32>) -> tensor<4xi1>

%r = forge.lt %x, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>

%r = forge.le %x, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>

%r = forge.gt %x, 0 : (tensor<4xf32>) -> tensor<4xi1>

%r = forge.ge %x, %y : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xi1>

%r = forge.logical_and %x, %y : (tensor<4xi1>, tensor<4xi1>) -> tensor<4xi1>

%r = forge.logical_or %x, %y : (tensor<4xi1>, tensor<4xi1>) -> tensor<4xi1>

%r = forge.logical_xor %x, %y : (tensor<4xi1>, tensor<4xi1>) -> tensor<4xi1>

%r = forge.bitwise_and %x, %y : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>

%r = forge.bitwise_or %x, %y : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>

%r = forge.bitwise_xor %x, %y : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>

%r = forge.shift_left %x, 3 : (tensor<4xi64>) -> tensor<4xi64>

%r = forge.shift_right %x, %y : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>

%r = forge.softplus %x beta 1.0 threshold 20.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.elu %x alpha 1.5 scale 1 input_scale 1.0 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.leaky_relu %x slope 0.01 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.hardswish %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.hardsigmoid %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.mish %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.swish %x beta 1.702 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.log_sigmoid %x : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.where %c, %x, %y : (tensor<4x1xi1>, tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>

%r = forge.masked_fill %x, %m with -inf : (tensor<4x8xf32>, tensor<8xi1>) -> tensor<4x8xf32>

%r = forge.tril %x diagonal -1 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.triu %x diagonal s0 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>

%r = forge.copy %x : (tensor<4x8xf32, #forge.tensor<[], strides = [1, 4]>>) -> tensor<4x8xf32>

%r = forge.reshape %x : (tensor<?x6xf32, #forge.tensor<[s0]>>) -> tensor<?x2x3xf32, #forge.tensor<[s0]>>

%r = forge.transpose %x [1, 0, 2] :
    (tensor<4x8x2xf32>) -> tensor<8x4x2xf32, #forge.tensor<[], strides = [2, 16, 1]>>

%r = forge.broadcast %x : (tensor<1x8xf32>) -> tensor<3x4x8xf32>

%r = forge.slice %x dim 1 from 2 step 2 : (tensor<4x8xf32>) -> tensor<4x3xf32>

%r = forge.slice %x dim 0 from s0 - 1 step 1 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<1x8xf32>

%r = forge.concat %x, %y dim 0 :
    (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<1x8xf32>) -> tensor<?x8xf32, #forge.tensor<[s0 + 1]>>

%r = forge.insert_slice %x into %y dim 1 from 2 step 2 : (tensor<4x3xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.window %x from [0, 1] steps [1, 1] : (tensor<4x8xf32>) -> tensor<4xf32, #forge.tensor<[], strides = [9]>>

%r = forge.window %x from [0] steps [2, 1] : (tensor<8xf32>) -> tensor<3x4xf32, #forge.tensor<[], strides = [2, 1]>>

%r = forge.insert_window %x into %y from [0, 1] steps [1, 1] : (tensor<4xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.flip %x dims [0, 1] : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.sum %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>

%r = forge.sum %x over [0, 1] : (tensor<4x8xi1>) -> tensor<i64>

%r = forge.mean %x over [1] : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>>

%r = forge.amax %x over [0, 1] : (tensor<4x8xf32>) -> tensor<f32>

%r = forge.amin %x over [1] keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>

%r = forge.prod %x over [0] : (tensor<4x8xi64>) -> tensor<8xi64>

%r = forge.any %x over [1] : (tensor<4x8xi1>) -> tensor<4xi1>

%r = forge.all %x over [0, 1] : (tensor<4x8xf32>) -> tensor<i1>

%r = forge.var %x over [1] correction 1 keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>

%r = forge.std %x over [0, 1] correction 0 : (tensor<4x8xf32>) -> tensor<f32>

%r = forge.vector_norm %x over [1] ord 2.0 keepdim : (tensor<4x8xf32>) -> tensor<4x1xf32>

%r = forge.vector_norm %x over [0, 1] ord -inf : (tensor<4x8xf32>) -> tensor<f32>

%r = forge.logsumexp %x over [1] : (tensor<4x8xf32>) -> tensor<4xf32>

%r = forge.argmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4xi64>

%r = forge.argmin %x dim 1 keepdim : (tensor<4x8xf32>) -> tensor<4x1xi64>

%r = forge.cumsum %x dim 1 : (tensor<4x8xi1>) -> tensor<4x8xi64>

%r = forge.cumprod %x dim 0 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.softmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.log_softmax %x dim 1 : (tensor<4x8xf32>) -> tensor<4x8xf32>

%v, %i = forge.sort %x dim 1 descending stable : (tensor<4x8xf32>) -> (tensor<4x8xf32>, tensor<4x8xi64>)

%v, %i = forge.topk %x k 2 dim 1 smallest : (tensor<4x8xf32>) -> (tensor<4x2xf32>, tensor<4x2xi64>)

%r = forge.argsort %x descending : (tensor<4x8xf32>) -> tensor<4x8xi64>

%v, %i = forge.max %x dim 1 : (tensor<4x8xf32>) -> (tensor<4xf32>, tensor<4xi64>)

%v, %i = forge.min %x dim 0 keepdim : (tensor<4x8xf32>) -> (tensor<1x8xf32>, tensor<1x8xi64>)

%r = forge.matmul %x, %y :
    (tensor<2x?x8xf32, #forge.tensor<[s0]>>, tensor<8x3xf32>) -> tensor<2x?x3xf32, #forge.tensor<[s0]>>

%r = forge.grouped_matmul %x, %w ends %e :
    (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<3x8x4xf32>, tensor<3xi32>) -> tensor<?x4xf32, #forge.tensor<[s0]>>

%r = forge.linear %x, %w bias %b :
    (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<3x8xf32>, tensor<3xf32>) -> tensor<?x3xf32, #forge.tensor<[s0]>>

%r = forge.linear %x, %w : (tensor<2x5x8xf32>, tensor<3x8xf32>) -> tensor<2x5x3xf32>

%r = forge.linear %x, %w scales %s compute "i8" :
    (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<3x8xi8>, tensor<3x1xf32>) -> tensor<?x3xf32, #forge.tensor<[s0]>>

%r = forge.linear %x, %w bias %b scales %s zeros %z compute "bf16" packing "u4" high_first run 2 :
    (tensor<5x16xbf16>, tensor<3x8xui8>, tensor<3xbf16>, tensor<3x4xbf16>, tensor<3x4xi8>) -> tensor<5x3xbf16>

%r = forge.linear %x, %w scales %s compute "bf16" scale_result :
    (tensor<5x8xbf16>, tensor<3x8xi8>, tensor<3x1xf32>) -> tensor<5x3xf32>

%r = forge.quantize %x, %s zeros %z compute "f32" :
    (tensor<?x8xf32, #forge.tensor<[s0]>>, tensor<f32>, tensor<ui8>) -> tensor<?x8xui8, #forge.tensor<[s0]>>

%r = forge.quantize %x, %s compute "f32" reciprocal zeros_first lower -127 upper 127 :
    (tensor<4x8xbf16>, tensor<4x2xf32>) -> tensor<4x8xi8>

%r = forge.dequantize %q scales %s zeros %z compute "f32" :
    (tensor<?x8xui8, #forge.tensor<[s0]>>, tensor<f32>, tensor<ui8>) -> tensor<?x8xf32, #forge.tensor<[s0]>>

%r = forge.dequantize %q scales %s compute "i8" packing "s4" run 4 :
    (tensor<6x4xui8>, tensor<3x2xf32>) -> tensor<6x8xbf16>

%r = forge.convolution %x, %w bias %b strides [2, 2] padding [1, 1] dilation [1, 1] groups 2 :
    (tensor<1x4x9x9xf32>, tensor<6x2x3x3xf32>, tensor<6xf32>) -> tensor<1x6x5x5xf32>

%r = forge.convolution %x, %w strides [1] padding [1] dilation [1] groups 1 :
    (tensor<2x4x?xf32, #forge.tensor<[s0]>>, tensor<6x4x3xf32>) -> tensor<2x6x?xf32, #forge.tensor<[s0]>>

%r = forge.windowed_linear %x, %w bias %b kernel [3, 2] strides [2, 1] dilation [1, 2] :
    (tensor<1x2x9x?x4xf32, #forge.tensor<[s0]>>, tensor<2x3x24xf32>, tensor<6xf32>)
    -> tensor<1x6x4x?xf32, #forge.tensor<[s0 - 2]>>

%r = forge.windowed_linear %x, %w kernel [3] strides [1] dilation [1] :
    (tensor<2x1x?x4xf32, #forge.tensor<[s0]>>, tensor<1x6x12xf32>) -> tensor<2x6x?xf32, #forge.tensor<[s0 - 2]>>

%r = forge.byte_linear %x, %w : (tensor<?x5x24xi8, #forge.tensor<[s0]>>, tensor<6x24xi8>)
    -> tensor<?x5x6xi32, #forge.tensor<[s0]>>

%r = forge.conv_transpose %x, %w bias %b strides [2] padding [1] output_padding [1] dilation [1] groups 2 :
    (tensor<2x4x?xf32, #forge.tensor<[s0]>>, tensor<4x3x3xf32>, tensor<6xf32>)
    -> tensor<2x6x?xf32, #forge.tensor<[s0 * 2]>>

%r = forge.layer_norm %x weight %w bias %b axes 1 eps 1.0e-05 :
    (tensor<4x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<4x8xf32>

%r = forge.layer_norm %x bias %b axes 1 eps 1.0e-05 : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>

%r = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 :
    (tensor<?x8xbf16, #forge.tensor<[s0]>>, tensor<8xbf16>) -> tensor<?x8xbf16, #forge.tensor<[s0]>>

%r = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 weight_offset 1.0 :
    (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>

%r = forge.rms_norm %x weight %w axes 1 eps 1.0e-06 rounding "normalized" :
    (tensor<4x8xbf16>, tensor<8xbf16>) -> tensor<4x8xbf16>

%r = forge.rms_norm %x axes 1 eps 1.0e-06 rounding "scale" : (tensor<4x8xbf16>) -> tensor<4x8xbf16>

%r = forge.layer_norm %x weight %w bias %b axes 1 eps 1.0e-05 rounding "normalized" :
    (tensor<4x8xf16>, tensor<8xf16>, tensor<8xf16>) -> tensor<4x8xf16>

%r = forge.rms_norm %x weight %w axes 1 eps 1.0e-08 eps_form "outside" :
    (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>

%r = forge.rms_norm %x axes 1 eps 1.0e-12 eps_form "least" : (tensor<4x8xbf16>) -> tensor<4x8xbf16>

%r = forge.rms_norm %x axes 2 : (tensor<4x8x2xf32>) -> tensor<4x8x2xf32>

%r = forge.group_norm %x weight %w bias %b groups 2 eps 1.0e-05 :
    (tensor<1x4x3x3xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x4x3x3xf32>

%r = forge.batch_norm %x, %m, %v weight %w bias %b eps 1.0e-05 :
    (tensor<2x4x3xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4x3xf32>

%r = forge.pad %x mode "constant" low [0, 1] high [s0, 0] value -inf :
    (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x9xf32, #forge.tensor<[s0 * 2]>>

%r = forge.pad %x mode "reflect" low [0, 0, 1] high [0, 0, 2] : (tensor<2x4x8xf32>) -> tensor<2x4x11xf32>

%r = forge.pad %x mode "replicate" low [0, 0, 1, 0] high [0, 0, 2, 3] :
    (tensor<2x4x8x3xf32>) -> tensor<2x4x11x6xf32>

%r = forge.max_pool %x kernel [3, 2] strides [2, 2] padding [1, 0] dilation [1, 1] ceil :
    (tensor<1x4x8x7xf32>) -> tensor<1x4x5x4xf32>

%r = forge.avg_pool %x kernel [3] strides [2] padding [1] count_padding :
    (tensor<1x4x?xf32, #forge.tensor<[s0]>>) -> tensor<1x4x?xf32, #forge.tensor<[floordiv(s0 + 1, 2)]>>

%r = forge.avg_pool %x kernel [2, 2] strides [2, 2] padding [0, 0] divisor 3 :
    (tensor<1x4x8x8xf32>) -> tensor<1x4x4x4xf32>

%r = forge.adaptive_avg_pool %x sizes [3, 1] : (tensor<1x4x8x7xf32>) -> tensor<1x4x3x1xf32>

%r = forge.resize %x mode "linear" sizes [6, 8] align_corners : (tensor<1x2x3x4xf32>) -> tensor<1x2x6x8xf32>

%r = forge.resize %x mode "nearest" sizes [7] scales [2.5] : (tensor<1x2x3xf32>) -> tensor<1x2x7xf32>

%r = forge.attention %q, %k, %v scale 0.125 causal :
    (tensor<1x4x?x8xf32, #forge.tensor<[s0]>>, tensor<1x2x?x8xf32, #forge.tensor<[s0]>>,
     tensor<1x2x?x8xf32, #forge.tensor<[s0]>>)
    -> tensor<1x4x?x8xf32, #forge.tensor<[s0]>>

%r = forge.attention %q, %k, %v mask %m sinks %s query_scale 0.5 softcap 50.0 causal window 4
    empty_row "uniform" softmax_dtype "f64" :
    (tensor<4x3x8xf32>, tensor<2x5x8xf32>, tensor<2x5x6xf32>, tensor<3x5xi1>, tensor<4xf32>) -> tensor<4x3x6xf32>

%r = forge.attention %q, %k, %v keys %m causal offset s0 chunk 4 :
    (tensor<1x4x?x8xf32, #forge.tensor<[s0]>>, tensor<1x2x?x8xf32, #forge.tensor<[s0 * 2]>>,
     tensor<1x2x?x8xf32, #forge.tensor<[s0 * 2]>>, tensor<1x?xi1, #forge.tensor<[s0 * 2]>>)
    -> tensor<1x4x?x8xf32, #forge.tensor<[s0]>>

%r = forge.attention %q, %k, %v keys %m window 2 :
    (tensor<2x4x5x8xf32>, tensor<2x2x5x8xf32>, tensor<2x2x5x6xf32>, tensor<2x5xi1>) -> tensor<2x4x5x6xf32>

%r = forge.attention %q, %k, %v sinks %s :
    (tensor<4x3x8xf32>, tensor<2x5x8xf32>, tensor<2x5x6xf32>, tensor<4xf32>) -> tensor<4x3x6xf32>

%r = forge.rope %x cos %c sin %s :
    (tensor<1x4x?x8xf32, #forge.tensor<[s0]>>, tensor<1x1x?x8xf32, #forge.tensor<[s0]>>,
     tensor<1x1x?x8xf32, #forge.tensor<[s0]>>)
    -> tensor<1x4x?x8xf32, #forge.tensor<[s0]>>

%r = forge.rope %x cos %c sin %s interleaved :
    (tensor<4x3x8xf32>, tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<4x3x8xf32>

%r = forge.rope %x cos %c sin %s interleaved to_halves once keep_dtype start 2 :
    (tensor<4x3x8xbf16>, tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<4x3x8xbf16>

%r = forge.glu %g, %u activation "silu" : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.glu %g, %u activation "silu" alpha 1.702 limit 7.0 up_offset 1.0 :
    (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.glu %g, %u activation "gelu_tanh" limit 7.0 : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>

%r = forge.moe %x, %indices, %weights, %up, %down activation "silu" packed "halves" :
    (tensor<5x8xf32>, tensor<5x2xi64>, tensor<5x2xf32>, tensor<4x24x8xf32>, tensor<4x8x12xf32>) -> tensor<5x8xf32>

%r = forge.moe %x, %indices, %weights, %up, %down bias_up %bu bias_down %bd activation "silu" packed "interleaved"
    alpha 1.702 limit 7.0 up_offset 1.0 transposed :
    (tensor<2x?x8xf32, #forge.tensor<[s0]>>, tensor<2x?x2xi64, #forge.tensor<[s0]>>,
     tensor<2x?x2xf32, #forge.tensor<[s0]>>, tensor<4x8x24xf32>, tensor<4x12x8xf32>, tensor<4x24xf32>, tensor<4x8xf32>)
    -> tensor<2x?x8xf32, #forge.tensor<[s0]>>

%r = forge.moe %x, %indices, %weights, %up, %down w_gate %gate activation "gelu" scale_input :
    (tensor<5x8xf32>, tensor<5x1xi64>, tensor<5x1xf32>, tensor<4x12x8xf32>, tensor<4x8x12xf32>, tensor<4x12x8xf32>)
    -> tensor<5x8xf32>

%r = forge.moe %x, %indices, %weights, %up, %down activation "relu_squared" :
    (tensor<5x8xf32>, tensor<5x2xi64>, tensor<5x2xf32>, tensor<4x12x8xf32>, tensor<4x8x12xf32>) -> tensor<5x8xf32>

%r = forge.embedding %w, %i :
    (tensor<16x8xf32>, tensor<1x?xi64, #forge.tensor<[s0]>>) -> tensor<1x?x8xf32, #forge.tensor<[s0]>>

%r = forge.index_select %x, %i dim 1 : (tensor<4x8xf32>, tensor<3xi64>) -> tensor<4x3xf32>

%r = forge.gather %x, %i dim 1 : (tensor<4x8xf32>, tensor<4x2xi64>) -> tensor<4x2xf32>

%r = forge.index %x at %i, %j dims [0, 2] : (tensor<4x5x8xf32>, tensor<3x1xi64>, tensor<2xi64>) -> tensor<3x2x5xf32>

%r = forge.index_put %x, %v at %i dims [1] accumulate :
    (tensor<4x8xf32>, tensor<4x3xf32>, tensor<3xi64>) -> tensor<4x8xf32>

%r = forge.index_copy %x, %i, %y dim 1 : (tensor<4x8xf32>, tensor<3xi64>, tensor<4x3xf32>) -> tensor<4x8xf32>

%r = forge.scatter %x, %i, %y dim 1 : (tensor<4x8xf32>, tensor<4x3xi64>, tensor<4x3xf32>) -> tensor<4x8xf32>

%r = forge.scatter_add %x, %i, %y dim 1 : (tensor<4x8xf32>, tensor<4x3xi64>, tensor<4x3xf32>) -> tensor<4x8xf32>

%r = forge.index_add %x, %i, %y dim 1 : (tensor<4x8xf32>, tensor<3xi64>, tensor<4x3xf32>) -> tensor<4x8xf32>

func.func @forward(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %n = forge.extent 4 : tensor<i64>
  %c = forge.gt %n, 0 : (tensor<i64>) -> tensor<i1>
  forge.assert %c, "there must be rows" : tensor<i1>
  func.return %x : tensor<4x8xf32>
}

func.func @forward(%x: tensor<4x8xf32>, %c: tensor<i1>) -> tensor<4x8xf32> {
  %p = forge.item %c : (tensor<i1>) -> i1
  %r = scf.if %p -> (tensor<4x8xf32>) {
    %s = forge.sin %x : (tensor<4x8xf32>) -> tensor<4x8xf32>
    scf.yield %s : tensor<4x8xf32>
  } else {
    scf.yield %x : tensor<4x8xf32>
  }
  func.return %r : tensor<4x8xf32>
}

func.func @forward(%x: tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<i64> {
  %count = forge.extent s0 * 8 : tensor<i64>
  func.return %count : tensor<i64>
}

func.func @forward(%x: tensor<4x8xf32>, %zero: tensor<i64>) -> tensor<i64> {
  %lower = forge.extent 0 : index
  %upper = forge.extent 4 : index
  %step = forge.extent 1 : index
  %r = scf.for %i = %lower to %upper step %step iter_args(%sum = %zero) -> (tensor<i64>) {
    %n = forge.from_index %i : (index) -> tensor<i64>
    %next = forge.add %sum, %n : (tensor<i64>, tensor<i64>) -> tensor<i64>
    scf.yield %next : tensor<i64>
  }
  func.return %r : tensor<i64>
}

func.func @forward(%x: tensor<8x5xf32>, %s: tensor<8xf32>, %d: tensor<f32>) -> tensor<5x8xf32> {
  %l, %y = forge.scan 5 (carried %c = %s : tensor<8xf32>, over %a = %x dim 1 : tensor<8x5xf32>,
      with %b = %d : tensor<f32>) {
    %0 = forge.mul %c, %b : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
    %1 = forge.add %0, %a : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
    forge.yield %1, %1 : tensor<8xf32>, tensor<8xf32>
  } : tensor<8xf32>, tensor<5x8xf32>
  func.return %y : tensor<5x8xf32>
}

func.func @forward(%x: tensor<9x8xf32>, %w: tensor<4x8xf32>, %r: tensor<9x4xf32>) -> tensor<9x4xf32> {
  %y = forge.fused "linear" (%a = %x : tensor<9x8xf32>, %b = %w : tensor<4x8xf32>, %c = %r : tensor<9x4xf32>) {
    %0 = forge.linear %a, %b : (tensor<9x8xf32>, tensor<4x8xf32>) -> tensor<9x4xf32>
    %1 = forge.add %c, %0 : (tensor<9x4xf32>, tensor<9x4xf32>) -> tensor<9x4xf32>
    forge.yield %1 : tensor<9x4xf32>
  } : tensor<9x4xf32>
  func.return %y : tensor<9x4xf32>
}
