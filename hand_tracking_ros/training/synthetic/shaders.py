"""GLSL of the hand renderer: skinned hands and simple solids, one key light with a shadow map, one fill light, sky.

All in metres in the camera's optical frame (x right, y down, z forward). Colours are linear RGB; the alpha channel of
the output is the depth in metres (0: nothing there).
"""

from __future__ import annotations

MAX_CAPSULES = 64
NUM_BONES = 23

PROJECTION = """
uniform vec4 camera;      // fx, fy, cx, cy in pixels
uniform vec2 image_size;  // pixels
const float NEAR = 0.03, FAR = 12.0;
vec4 project(vec3 p) {
    vec2 pixel_times_z = camera.xy * p.xy + camera.zw * p.z;
    return vec4(2.0 * pixel_times_z / image_size - p.z,
                ((FAR + NEAR) * p.z - 2.0 * FAR * NEAR) / (FAR - NEAR), p.z);
}
"""

SHADOW_PROJECTION = """
uniform vec3 light_x, light_y, light_z;  // orthonormal; light_z points away from the light
uniform vec4 light_range;                // centre of the lit region, and its radius in metres
vec3 to_light(vec3 p) {
    vec3 d = (p - light_range.xyz) / light_range.w;
    return vec3(dot(d, light_x), dot(d, light_y), dot(d, light_z));
}
"""

SKINNING = """
in vec3 in_position; in vec3 in_normal; in vec3 in_canonical; in vec4 in_attributes;
in vec4 in_bone; in vec4 in_weight;
uniform mat4 bones[23];
uniform float sleeve_start, sleeve_thickness;  // model units; what lies behind the start is under a sleeve
vec3 skinned(out vec3 normal) {
    mat4 m = in_weight.x * bones[int(in_bone.x)] + in_weight.y * bones[int(in_bone.y)]
           + in_weight.z * bones[int(in_bone.z)] + in_weight.w * bones[int(in_bone.w)];
    float under = smoothstep(sleeve_start - 0.02, sleeve_start + 0.06, in_attributes.w);
    normal = normalize(mat3(m) * in_normal);
    return (m * vec4(in_position + in_normal * sleeve_thickness * under, 1.0)).xyz;
}
"""

OPEN_SKY = f"""
uniform int capsule_count;
uniform vec4 capsule_start[{MAX_CAPSULES}], capsule_end[{MAX_CAPSULES}];  // w of the start: radius
float open_sky(vec3 p, vec3 n) {{{{  // ambient occlusion by the bones, each a capsule of flesh
    float open = 1.0;
    for (int k = 0; k < capsule_count; ++k) {{{{
        vec3 a = capsule_start[k].xyz - p, ab = capsule_end[k].xyz - capsule_start[k].xyz;
        vec3 to = a + ab * clamp(-dot(a, ab) / dot(ab, ab), 0.0, 1.0);
        float d2 = dot(to, to), r = capsule_start[k].w, facing = dot(n, to) * inversesqrt(d2);
        open *= 1.0 - clamp(facing, 0.0, 1.0) * min(1.0, r * r / d2) * 0.8;
    }}}}
    return open;
}}}}
"""

HAND_VERTEX = f"""#version 330
{PROJECTION}{SKINNING}{OPEN_SKY}
out vec3 position, normal, canonical; out vec4 attributes; out float open;
void main() {{
    position = skinned(normal);
    canonical = in_canonical; attributes = in_attributes;
    open = open_sky(position, normal);
    gl_Position = project(position);
}}
"""

HAND_SHADOW_VERTEX = f"""#version 330
{SHADOW_PROJECTION}{SKINNING}
void main() {{
    vec3 normal;
    gl_Position = vec4(to_light(skinned(normal)), 1.0);
}}
"""

SOLID_VERTEX = f"""#version 330
{PROJECTION}{OPEN_SKY}
in vec3 in_position; in vec3 in_normal;
uniform mat4 model; uniform mat3 normal_matrix;
out vec3 position, normal, canonical; out float open;
void main() {{
    position = (model * vec4(in_position, 1.0)).xyz;
    normal = normalize(normal_matrix * in_normal);
    canonical = in_position;
    open = open_sky(position, normal);
    gl_Position = project(position);
}}
"""

SOLID_SHADOW_VERTEX = f"""#version 330
{SHADOW_PROJECTION}
in vec3 in_position;
uniform mat4 model;
void main() {{ gl_Position = vec4(to_light((model * vec4(in_position, 1.0)).xyz), 1.0); }}
"""

SHADOW_FRAGMENT = """#version 330
void main() {}
"""

LIGHTING = f"""
{SHADOW_PROJECTION}
uniform sampler2DShadow shadow_map;
uniform vec3 key_direction, key_color, fill_direction, fill_color, sky_color, ground_color;
uniform float shadow_strength, wrap;

float hash(vec3 p) {{
    p = fract(p * 0.3183099 + vec3(0.71, 0.113, 0.419));
    p *= 17.0;
    return fract(p.x * p.y * p.z * (p.x + p.y + p.z));
}}
float noise(vec3 p) {{  // value noise, -1..1
    vec3 cell = floor(p), f = fract(p);
    f = f * f * (3.0 - 2.0 * f);
    vec4 low = vec4(hash(cell), hash(cell + vec3(1, 0, 0)), hash(cell + vec3(0, 1, 0)), hash(cell + vec3(1, 1, 0)));
    cell.z += 1.0;
    vec4 high = vec4(hash(cell), hash(cell + vec3(1, 0, 0)), hash(cell + vec3(0, 1, 0)), hash(cell + vec3(1, 1, 0)));
    vec4 s = mix(low, high, f.z);
    vec2 r = mix(s.xz, s.yw, f.x);
    return 2.0 * mix(r.x, r.y, f.y) - 1.0;
}}
float lit_share(vec3 p, vec3 n) {{  // of the key light, after shadows; four taps of a filtered map
    vec3 q = to_light(p + n * 0.0035) * 0.5 + 0.5;
    if (any(lessThan(q, vec3(0.0))) || any(greaterThan(q, vec3(1.0)))) return 1.0;
    float texel = 1.0 / float(textureSize(shadow_map, 0).x), sum = 0.0;
    for (int k = 0; k < 4; ++k) {{
        vec2 tap = 1.2 * texel * (vec2(k & 1, k >> 1) - 0.5) * 2.0;
        sum += texture(shadow_map, vec3(q.xy + tap, q.z - 0.001 / light_range.w));
    }}
    return mix(1.0, sum / 4.0, shadow_strength);
}}
vec3 shade(vec3 p, vec3 n, vec3 albedo, vec3 glow, float specular, float gloss, float open) {{
    vec3 v = normalize(-p);
    float lit = lit_share(p, n), facing = dot(n, key_direction);
    vec3 soft = vec3(wrap) + glow;  // light that enters the skin comes out redder past the terminator
    vec3 key = max(vec3(0.0), (vec3(facing) + soft) / (1.0 + soft)) * lit * key_color;
    vec3 fill = max(0.0, dot(n, fill_direction) * 0.8 + 0.2) * fill_color * (0.3 + 0.7 * open);
    vec3 ambient = mix(sky_color, ground_color, 0.5 + 0.5 * n.y) * open;
    vec3 h = normalize(key_direction + v);
    float fresnel = 0.3 + 0.7 * pow(1.0 - max(0.0, dot(n, v)), 4.0);
    float shine = specular * pow(max(0.0, dot(n, h)), gloss) * lit;
    return albedo * (key + fill + ambient) + shine * key_color + specular * 0.6 * fresnel * ambient;
}}
"""

HAND_FRAGMENT = f"""#version 330
{LIGHTING}
in vec3 position, normal, canonical; in vec4 attributes; in float open;
uniform vec3 skin_color, sleeve_color;
uniform float palm_lightness, nail_lightness, crease_depth, mottle, grain, specular, gloss, seed, relief;
uniform float sleeve_start, sleeve_pattern, band_start, band_end;  // the band is a watch or a bracelet
uniform vec3 band_color;
uniform vec4 palm_creases[9];  // segments (x0, y0, x1, y1) on the palm, in model units
out vec4 color;

float crease(float x, float width) {{ return exp(-x * x / (width * width)); }}
float joint_lines(float t) {{  // at the middle and the last joint of a finger: one deep line and two beside it
    if (t < 0.5 || t > 2.6) return 0.0;
    float d = t - round(t);
    return crease(d, 0.04) + 0.6 * crease(d - 0.1, 0.025) + 0.5 * crease(d + 0.1, 0.025);
}}
float palm_lines() {{
    float sum = 0.0;
    for (int k = 0; k < 9; ++k) {{
        vec2 a = canonical.xy - palm_creases[k].xy, ab = palm_creases[k].zw - palm_creases[k].xy;
        sum = max(sum, crease(length(a - ab * clamp(dot(a, ab) / dot(ab, ab), 0.0, 1.0)), 0.014));
    }}
    return sum;
}}
void main() {{
    vec3 n = normalize(normal), c = canonical + seed;
    float palm = smoothstep(-0.2, 0.6, attributes.z), nail = smoothstep(0.35, 0.75, attributes.y);
    float pixel = length(fwidth(canonical));
    float fine = grain * (1.0 - smoothstep(0.01, 0.04, pixel));
    vec3 albedo; float spec = specular, shininess = gloss; vec3 glow = vec3(0.16, 0.03, 0.0);
    if (attributes.w > sleeve_start) {{
        float folds = noise(c * vec3(5.0, 2.5, 5.0)), weave = noise(c * 26.0);
        float stripes = step(0.0, sin(canonical.y * 40.0)) - 0.5;
        albedo = sleeve_color * (1.0 + 0.25 * folds + 0.12 * weave + sleeve_pattern * stripes);
        albedo *= 1.0 - 0.5 * crease(attributes.w - sleeve_start, 0.03);
        n = normalize(n + 0.35 * vec3(folds, noise(c * 4.0 + 7.0), weave));
        spec = 0.01; glow = vec3(0.0);
    }} else if (attributes.w > band_start && attributes.w < band_end) {{
        albedo = band_color; spec = 0.25; shininess = 40.0; glow = vec3(0.0);
    }} else {{
        float blotch = noise(c * 7.0) + 0.5 * noise(c * 16.0), pores = noise(c * 55.0);
        float lines = joint_lines(attributes.x) * mix(1.0, 0.8, palm);
        if (attributes.x <= 0.0 && attributes.w <= 0.0 && attributes.z > 0.2)
            lines = 1.2 * palm_lines() * smoothstep(0.2, 0.7, attributes.z);
        albedo = skin_color * (1.0 + palm_lightness * palm) * (1.0 + mottle * blotch + fine * pores);
        albedo *= vec3(1.0 - crease_depth * min(lines, 1.2)) * vec3(1.0, 1.0 - 0.1 * blotch * mottle, 1.0);
        float knuckle = attributes.x > 0.0 ? crease(attributes.x - round(attributes.x), 0.12) * (1.0 - palm) : 0.0;
        albedo *= vec3(1.0 - 0.12 * knuckle, 1.0 - 0.2 * knuckle, 1.0 - 0.2 * knuckle);
        float tip = smoothstep(2.6, 3.0, attributes.x);
        albedo *= vec3(1.0 + 0.08 * tip, 1.0 - 0.06 * tip, 1.0 - 0.06 * tip);
        albedo = mix(albedo, albedo * (1.0 + nail_lightness) + 0.05 * nail_lightness, nail);
        spec = mix(spec, 2.0 * spec + 0.06, nail); shininess = mix(gloss, 45.0, nail);
        float wavy = noise(c * vec3(30.0, 14.0, 30.0));
        n = normalize(n + relief * (1.0 - nail) * vec3(wavy, pores, blotch));
    }}
    albedo = max(albedo, vec3(0.004));
    color = vec4(shade(position, n, albedo, glow, spec, shininess, open), position.z);
}}
"""

SOLID_FRAGMENT = f"""#version 330
{LIGHTING}
in vec3 position, normal, canonical; in float open;
uniform vec3 base_color, second_color;
uniform int material;  // 0 plain, 1 cloth, 2 face, 3 stripes
uniform float seed, specular;
out vec4 color;

float blob(vec2 p, vec2 center, vec2 radius) {{ vec2 d = (p - center) / radius; return exp(-dot(d, d)); }}
void main() {{
    vec3 n = normalize(normal), c = canonical + seed;
    vec3 albedo = base_color * (1.0 + 0.12 * noise(c * 4.0) + 0.06 * noise(c * 23.0)), glow = vec3(0.0);
    if (material == 1) {{
        n = normalize(n + 0.4 * vec3(noise(c * 3.0), noise(c * 3.0 + 7.0), noise(c * 3.0 + 13.0)));
        albedo *= 1.0 + 0.2 * noise(c * vec3(4.0, 2.0, 4.0)) + 0.1 * noise(c * 40.0);
    }} else if (material == 2) {{  // features on the front (-z) of a unit ellipsoid, hair on top and behind
        vec2 q = vec2(abs(canonical.x), canonical.y);
        float front = smoothstep(0.1, -0.3, canonical.z);
        float dark = blob(q, vec2(0.38, -0.12), vec2(0.17, 0.07)) + 0.8 * blob(q, vec2(0.4, -0.3), vec2(0.22, 0.05))
                   + 0.5 * blob(q, vec2(0.1, 0.28), vec2(0.07, 0.05))
                   + 0.7 * blob(q, vec2(0.0, 0.52), vec2(0.25, 0.06));
        albedo *= 1.0 - 0.75 * front * min(dark, 1.0);
        albedo *= 1.0 + 0.25 * blob(q, vec2(0.0, 0.15), vec2(0.1, 0.25));
        float hair = smoothstep(-0.02, 0.08, canonical.z - 0.1 + 0.1 * noise(c * 6.0))
                   + smoothstep(0.5, 0.62, -canonical.y + 0.1 * noise(c * 6.0));
        albedo = mix(albedo, second_color * (1.0 + 0.5 * noise(c * vec3(30.0, 4.0, 30.0))), min(hair, 1.0));
        glow = vec3(0.12, 0.02, 0.0);
    }} else if (material == 3) {{
        albedo = mix(albedo, second_color, step(0.3, noise(c * vec3(1.0, 6.0, 1.0))));
    }}
    color = vec4(shade(position, n, albedo, glow, specular, 25.0, open), position.z);
}}
"""
