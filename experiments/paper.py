"""Tables of CVR (Yang et al. 2021), on Taskonomy at 256×256, to be read beside other data's."""

TABLE_4 = """\
| CVR, Table 4 | Original | Control Group | Customized | Trinity | Trinity* | Hex |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| Scene class (accuracy, % ↑) | 70.02 | 75.74 | 71.19 | 71.08 | 59.64 | 62.18 |
| Semantic segmentation (mIoU, % ↑) | 18.37 | 18.85 | 18.19 | 18.14 | 17.36 | 20.30 |
| Object class (accuracy, % ↑) | 60.17 | 60.02 | 61.55 | 64.19 | 59.22 | 59.75 |
| Surface normals (L1 ↓) | 0.074 | 0.071 | 0.073 | 0.073 | 0.075 | 0.074 |
| Reshading (L1 ↓) | 0.221 | 0.172 | 0.173 | 0.168 | 0.185 | 0.168 |
| Principal curvature (L1 ↓) | 0.300 | 0.296 | 0.296 | 0.299 | 0.307 | 0.306 |
| Bpp, sum | – | – | 0.059 | 0.049 | 0.050 | 0.053 |
"""

TABLE_5 = """\
| CVR, Table 5 | Trinity | Trinity+ | BPG, QP 51 | BPG, QP 47 | BPG, QP 43 |
| --- | ---: | ---: | ---: | ---: | ---: |
| Scene class (accuracy, % ↑) | 71.08 | 64.62 | 24.02 | 37.14 | 50.05 |
| Semantic segmentation (mIoU, % ↑) | 18.14 | 11.49 | 10.08 | 11.06 | 13.93 |
| Object class (accuracy, % ↑) | 64.19 | 60.70 | 33.23 | 41.38 | 48.04 |
| Reconstruction (PSNR, dB ↑) | – | 31.05 | 29.01 | 31.06 | 32.85 |
| Bpp | 0.016 | 0.052 | 0.024 | 0.036 | 0.053 |
| Surface normals (L1 ↓) | 0.073 | 0.081 | 0.309 | 0.231 | 0.152 |
| Reshading (L1 ↓) | 0.168 | 0.185 | 0.535 | 0.340 | 0.255 |
| Principal curvature (L1 ↓) | 0.299 | 0.306 | 0.331 | 0.322 | 0.313 |
| Reconstruction (PSNR, dB ↑) | – | 28.79 | 29.01 | 31.06 | 32.85 |
| Bpp | 0.033 | 0.054 | 0.024 | 0.036 | 0.053 |
"""

TABLE_6 = """\
| CVR, Table 6: feature sent | Scene class (accuracy, % ↑) | Semantic segmentation (mIoU, % ↑) | \
Surface normals (L1 ↓) | Reshading (L1 ↓) |
| --- | ---: | ---: | ---: | ---: |
| Scene class | 71.11 at 0.0068 bpp | 11.45 at 0.0051 | 0.1413 at 0.0077 | 0.258 at 0.0080 |
| Semantic segmentation | 51.27 at 0.0057 | 18.19 at 0.0072 | 0.1470 at 0.0077 | 0.263 at 0.0095 |
| Surface normals | 52.44 at 0.0038 | 12.47 at 0.0026 | 0.0721 at 0.0187 | 0.176 at 0.0098 |
| Reshading | 46.82 at 0.0053 | 10.42 at 0.0023 | 0.0845 at 0.0093 | 0.171 at 0.0130 |
"""

TABLE_7 = """\
| CVR, Table 7 | bpp ↓ | Object class (accuracy, % ↑) | bpp ↓ | Reshading (L1 ↓) |
| --- | ---: | ---: | ---: | ---: |
| Original | – | 60.17 | – | 0.221 |
| Internal | 0.0132 | 51.06 | 0.0229 | 0.194 |
| External | 0.0132 | 44.81 | 0.0231 | 0.385 |
| Source+ | 0.0137 | 53.50 | 0.0167 | 0.205 |
| Image: BPG | 0.0371 | 54.56 | 0.0371 | 0.222 |
"""
