{#-
  One director for each service, for Varnish 6.4 or later. Include it in the main VCL, after the line `vcl 4.1;`, and write
  `set req.backend_hint = web.backend();` for the service `web`. Variables:
    director  random, hash or shard (by weight), round_robin or fallback (these ignore weights)
    backend   attributes of every backend: as VCL, or as a table whose values may come from tags
    probe     attributes of the backends' probe, as VCL, without .initial; "": no probe. Every VCL has probes of its own:
              unless these assume at first that every backend is healthy, each change would cause some answers 503
  A director has the name of its service, if that is a valid VCL identifier: see the functions vcl_director and
  vcl_backend.
  A service without backends answers 503.
-#}
# Written by elasticd: changes made here are lost.
import directors;
import std;

# Takes what is sent to no director, unless the main VCL has a backend called default.
backend elasticd_none_ none;
{%- for s in services %}
{%- for b in s.backends %}
{%- if b.weight %}

backend {{ b.id | vcl_backend: s.name | raw }} {
    .host = "{{ b.address }}";
    .port = "{{ b.port }}";
{%- if s.vars.probe %}
    .probe = { .initial = 64; {{ s.vars.probe | raw }} }
{%- endif %}
{%- if s.vars.backend | kind | eq: "text" %}{% if s.vars.backend %}
    {{ s.vars.backend | raw }}
{%- endif %}{% else %}
{%- for p in b | parameters: s.vars.backend, {
      "max_connections": "[0-9]{1,9}", "connect_timeout": "[0-9]{1,6}([.][0-9]{1,3})?(ms|s|m|h)",
      "first_byte_timeout": "[0-9]{1,6}([.][0-9]{1,3})?(ms|s|m|h)", "between_bytes_timeout": "[0-9]{1,6}([.][0-9]{1,3})?(ms|s|m|h)",
      "proxy_header": "1|2"
    } %}
    .{{ p.name | raw }} = {{ p.value | raw }};
{%- endfor %}
{%- endif %}
}
{%- endif %}
{%- endfor %}
{%- endfor %}

sub vcl_init {
    # Varnish refuses a VCL with a backend that nothing mentions.
    if (std.healthy(elasticd_none_)) {
    }
{%- for s in services %}
{%- with ["random", "hash"] | contains: s.vars.director as by_weight %}
{%- with s.vars.director | eq: "shard" as is_shard %}
    new {{ s.name | vcl_director | raw }} = directors.{{ s.vars.director | raw }}();
{%- for b in s.backends %}
{%- if b.weight %}
    {{ s.name | vcl_director | raw }}.add_backend({{ b.id | vcl_backend: s.name | raw }}
{%- if by_weight %}, {{ b.weight }}{% endif %}
{%- if is_shard %}, weight={{ b.weight }}{% endif %});
{%- endif %}
{%- endfor %}
{%- if is_shard %}
    {{ s.name | vcl_director | raw }}.reconfigure();
{%- endif %}
{%- endwith %}
{%- endwith %}
{%- endfor %}
}
