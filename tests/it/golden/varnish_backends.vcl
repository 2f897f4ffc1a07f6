# Written by elasticd: changes made here are lost.
import directors;
import std;

# Takes what is sent to no director, unless the main VCL has a backend called default.
backend elasticd_none_ none;

backend elasticd__api_2ev2__i-1 {
    .host = "10.0.0.1";
    .port = "8080";
}

backend elasticd__api_2ev2___49-1 {
    .host = "2001:db8::1";
    .port = "8080";
}

sub vcl_init {
    # Varnish refuses a VCL with a backend that nothing mentions.
    if (std.healthy(elasticd_none_)) {
    }
    new elasticd__api_2ev2 = directors.random();
    elasticd__api_2ev2.add_backend(elasticd__api_2ev2__i-1, 1);
    elasticd__api_2ev2.add_backend(elasticd__api_2ev2___49-1, 256);
    new drained = directors.random();
    new empty = directors.random();
}
